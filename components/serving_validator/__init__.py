"""Infra validation: does a model server load the model and answer?"""

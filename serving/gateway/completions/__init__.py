"""`/v1/completions`: OpenAI's completions API, from the signatures of a model.

`endpoint` routes, `schema` is what a request may say, `serving` asks the model, and
`streaming` does so piece by piece.
"""

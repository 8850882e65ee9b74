"""What setup.cfg cannot say: the repository's root is the package `langzoo`."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOMS = find_packages(exclude=("tests", "tests.*", "benchmarks", "benchmarks.*"))


class BuildPackage(build_py):
    """Leaves this file, which stands in the package's folder, out of the package."""

    def find_package_modules(self, package: str, package_dir: str) -> list:
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1:2] != ("setup",)]


setup(
    packages=["langzoo", *(f"langzoo.{room}" for room in ROOMS)],
    cmdclass={"build_py": BuildPackage},
)

"""Builds the compiled modules; everything else about the package is in pyproject.toml."""

import os
import runpy

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = runpy.run_path("src/ottla/_compiled.py")["MODULES"]

setup(
    ext_modules=cythonize(
        [Extension(name, [f"src/{name.replace('.', '/')}.py"]) for name in MODULES],
        language_level=3,
        build_dir="build",
    ),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)

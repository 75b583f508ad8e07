"""The models of a cross-validation's folds as one package: see `make.py`."""

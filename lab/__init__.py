"""Disposable virtual Docker hosts for Bulkhead's tests and demo. Run ``python3 -m lab --help``."""

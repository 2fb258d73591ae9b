"""How well the rules tell leaks from load: python -m benchmarks.detection [FOLDER OF TRACES]"""

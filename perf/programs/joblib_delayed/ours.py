from math import sqrt

import burla
from joblib import Parallel, delayed, parallel_config

burla.register_joblib()
with parallel_config(backend="burla"):
    print(sum(Parallel()(delayed(sqrt)(i**2) for i in range(20_000))))

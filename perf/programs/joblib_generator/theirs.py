from joblib import Parallel, delayed


def digits(n):
    return sum(map(int, str(3**n)))


results = Parallel(n_jobs=2, return_as="generator")(delayed(digits)(n) for n in range(1500))
print(sum(results))

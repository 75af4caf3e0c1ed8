import burla
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

X, y = load_digits(return_X_y=True)
forest = RandomForestClassifier(100, random_state=0)
burla.register_joblib()
with parallel_config(backend="burla"):
    scores = cross_val_score(forest, X, y, cv=6)
print([round(score, 4) for score in scores.tolist()])

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

X, y = load_digits(return_X_y=True)
forest = RandomForestClassifier(100, random_state=0)
scores = cross_val_score(forest, X, y, cv=6, n_jobs=2)
print([round(score, 4) for score in scores.tolist()])

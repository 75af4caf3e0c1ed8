from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

X, y = load_digits(return_X_y=True)
search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.0005, 0.001, 0.002]}, cv=3, n_jobs=2)
search.fit(X, y)
print(search.best_params_, round(search.best_score_, 4))

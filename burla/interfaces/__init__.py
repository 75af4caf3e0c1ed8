"""The interfaces that people know from elsewhere: executors, pools, asyncio, joblib, dask."""

"""The nodelet: one per machine; drives the forked workers that run the calls."""

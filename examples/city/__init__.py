"""A city's traffic and air: forecasts with intervals, warnings, silent sensors, a map."""

"""The city's tables: real ones where a folder has them, else a made city whose rules are written here.

traffic/speed.csv          a row every five minutes, a column a sensor, mph
traffic/adjacency.csv      weights of the sensors' roads, a row and a column a sensor, no header
traffic/sensor_locations.csv   sensor_id, latitude, longitude
air-quality/beijing_pm25.csv   a row an hour: year, month, day, hour, pm2.5 (NA: not measured) and the weather
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from fuseline.errors import FuselineError

SPEED, ADJACENCY, PLACES = (Path("traffic", f"{n}.csv") for n in ("speed", "adjacency", "sensor_locations"))
AIR = Path("air-quality", "beijing_pm25.csv")
FILES = (SPEED, ADJACENCY, PLACES, AIR)
WEATHER = ("DEWP", "TEMP", "PRES", "Iws", "Is", "Ir", "cbwd")
STEPS_A_DAY = 288
FREE_MPH = 66.0


def bring(folder: Path, data: Path | None, *, sensors: int = 48, days: int = 7, years: int = 2, seed: int = 0) -> str:
    """Put the four tables into `folder`: copied from `data`, or made. Returns which, in words.

    Raises FuselineError ``no_such_file`` where `data` lacks one of them.
    """
    if data is None:
        make_traffic(folder, sensors=sensors, days=days, seed=seed)
        make_air(folder, years=years, seed=seed)
        return f"a made city of {sensors} sensors, {days} days, and {years} years of air"
    for file in FILES:
        if not (data / file).is_file():
            raise FuselineError("no_such_file", f"{data} holds no {file}", "without --data, a city is made")
    for file in FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / file, folder / file)
    return f"the tables of {data}"


def make_traffic(folder: Path, *, sensors: int = 48, days: int = 7, seed: int = 0) -> None:
    """Speeds along four roads that meet in a centre. Each sensor slows in the rush hours, inbound in the morning and
    outbound in the evening; now and then a jam begins somewhere and creeps from sensor to sensor against the traffic,
    five minutes a sensor: what only the neighbours tell in time."""
    rng = np.random.default_rng([seed, 1])
    roads, long = 4, -(-sensors // 4)
    road_S, place_S = np.arange(sensors) % roads, np.arange(sensors) // roads
    angle_S = road_S * np.pi / 2 + rng.normal(0, 0.06, sensors)
    away_S = (place_S + 1) / long
    where_S2 = 0.12 * away_S[:, None] * np.stack([np.sin(angle_S), np.cos(angle_S)], axis=1)
    near_SS = np.exp(-((np.abs(place_S[:, None] - place_S) / 1.5) ** 2)) * (road_S[:, None] == road_S)
    near_SS = np.where(near_SS > 0.1, near_SS, 0.0)

    steps = days * STEPS_A_DAY
    hour_T = np.arange(steps) / 12 % 24
    weekend_T = (np.arange(steps) // STEPS_A_DAY + 3) % 7 >= 5  # 1 March 2012 is a Thursday
    inbound_S = road_S < 2

    def rush(middle: float, strength_S: np.ndarray) -> np.ndarray:
        shape_T = np.exp(-(((hour_T - middle) / 1.4) ** 2)) * np.where(weekend_T, 0.15, 1.0)
        return shape_T[:, None] * strength_S

    own_S = rng.uniform(0.7, 1.3, sensors)
    slow_TS = rush(8, own_S * np.where(inbound_S, 26.0, 8.0)) + rush(17.5, own_S * np.where(inbound_S, 9.0, 28.0))
    for _ in range(rng.poisson(1.5 * days * roads)):
        road, begin = int(rng.integers(roads)), int(rng.integers(steps))
        middle, lasts, depth = int(rng.integers(long)), int(rng.integers(4, 16)), rng.uniform(20, 42)
        for sensor in np.flatnonzero(road_S == road):
            behind = middle - int(place_S[sensor])  # further in is later: a jam creeps against the traffic
            if 0 <= behind <= lasts // 2:
                start, end = begin + behind, begin + behind + lasts - behind
                slow_TS[start:end, sensor] += depth * (1 - behind / lasts)
    wet_T = np.repeat(rng.random(-(-steps // 36)) < 0.12, 36)[:steps]
    speed_TS = FREE_MPH - slow_TS - 5.0 * wet_T[:, None] + rng.normal(0, 1.8, (steps, sensors))
    target = folder / "traffic"
    target.mkdir(parents=True, exist_ok=True)
    names = [str(700_000 + 37 * s) for s in range(sensors)]
    pl.DataFrame(np.clip(speed_TS, 3.0, 70.0).round(2), schema=names).write_csv(folder / SPEED)
    np.savetxt(folder / ADJACENCY, near_SS, fmt="%.6g", delimiter=",")
    latitude_S, longitude_S = 34.08 + where_S2[:, 0], -118.3 + where_S2[:, 1]
    pl.DataFrame({"sensor_id": names, "latitude": latitude_S.round(5), "longitude": longitude_S.round(5)}).write_csv(
        folder / PLACES
    )


def make_air(folder: Path, *, years: int = 2, seed: int = 0) -> None:
    """pm2.5 by the hour: it gathers while the air stands, the more in winter, and goes when the wind turns to the
    north-west or it rains. 4 % of the hours were not measured."""
    rng = np.random.default_rng([seed, 2])
    hours = np.arange(np.datetime64("2012-01-01T00"), np.datetime64(f"{2012 + years}-01-01T00"))
    steps = len(hours)
    day_T = (hours - hours[0]).astype(float) / 24
    winter_T = 0.5 + 0.5 * np.cos(2 * np.pi * day_T / 365.25)
    hour_T = np.arange(steps) % 24
    north_T, windy_T = np.zeros(steps, dtype=bool), np.zeros(steps)
    turn, north, wind = 0, False, 2.0
    for t in range(steps):
        if t >= turn:  # a spell of weather, one to four days
            turn, north = t + int(rng.integers(20, 90)), rng.random() < 0.45
            wind = rng.gamma(2.0, 2.4) if north else rng.gamma(1.4, 0.9)
        north_T[t], windy_T[t] = north, max(0.4, wind + rng.normal(0, 0.5))
    rain_T = np.repeat(rng.random(-(-steps // 5)) < 0.04 * (1.4 - winter_T[::5][: -(-steps // 5)]), 5)[:steps]
    heavy_T = np.zeros(steps)
    heavy = 60.0
    for t in range(steps):
        rate = 0.03 + 0.05 * windy_T[t] * (1.6 if north_T[t] else 0.5) + 0.25 * rain_T[t]
        heavy = max(
            3.0, heavy * (1 - min(0.6, rate)) + 6.0 + 9.0 * winter_T[t] + 2.5 * np.cos(2 * np.pi * hour_T[t] / 24)
        )
        heavy_T[t] = heavy + rng.normal(0, 4 + 0.05 * heavy)
    warm_T = 13 - 16 * winter_T + 4 * np.sin(2 * np.pi * (hour_T - 9) / 24) + rng.normal(0, 1.5, steps)
    damp_T = warm_T - np.where(north_T, 14, 5) - rng.gamma(2, 1.0, steps)
    when = hours.astype("datetime64[s]").astype(object)
    measured = rng.random(steps) >= 0.04
    table = pl.DataFrame(
        {
            "year": [w.year for w in when],
            "month": [w.month for w in when],
            "day": [w.day for w in when],
            "hour": [w.hour for w in when],
            "pm2.5": [str(round(max(1.0, v))) if m else "NA" for v, m in zip(heavy_T, measured, strict=True)],
            "DEWP": damp_T.round(0),
            "TEMP": warm_T.round(1),
            "PRES": (1016 + 9 * winter_T + np.where(north_T, 4, -2) + rng.normal(0, 2, steps)).round(0),
            "cbwd": np.where(north_T, "NW", np.where(rng.random(steps) < 0.5, "SE", "cv")),
            "Iws": windy_T.round(2),
            "Is": (rain_T & (warm_T < 0)).astype(int),
            "Ir": (rain_T & (warm_T >= 0)).astype(int),
        }
    )
    (folder / AIR).parent.mkdir(parents=True, exist_ok=True)
    table.write_csv(folder / AIR)

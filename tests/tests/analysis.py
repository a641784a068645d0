"""Runs the queries of docs/ANALYSIS.md and compares their answers with a report.

Arguments: the page, a directory with events.parquet and flows.parquet, and the report as JSON. Prints the number of queries.
"""

import json
import os
import re
import sys
from datetime import datetime, timezone

import duckdb

page, directory, report = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
blocks = re.findall(r"```sql\n(.*?)```", open(page).read(), re.DOTALL)
os.chdir(directory)
answers = {}
for block in blocks:
    named = re.match(r"-- (\w+)\n", block)
    if named:
        # Times of the page become text: this Python need not know time zones.
        query = block.split("\n", 1)[1].rstrip().rstrip(";")
        answers[named[1]] = duckdb.sql(f"select columns(*)::varchar from ({query})").fetchall()
    else:
        duckdb.sql(block)


def nanos(text):
    seconds, fraction = text.rstrip("Z").split(".")
    return int(datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc).timestamp()) * 10**9 + int(fraction)


def same(name, found, expected):
    # Whose a connection was that nobody saw begin is null in a table and "unknown" in a report.
    found = sorted(str(row) for row in found if row[0] is not None)
    expected = sorted(str(row) for row in expected if row[0] != "unknown")
    assert found == expected, f"{name}: the query says {found} and the report {expected}"


short = [one for one in report["destinations"] if one["failed"].get("EADDRNOTAVAIL")]
where = lambda one: (one["remote_addr"], str(one["remote_port"]))
same("exhausted", answers["exhausted"], [(str(one["netns"]), *where(one), str(one["failed"]["EADDRNOTAVAIL"])) for one in short])
same("span", answers["span"], [(*where(one), str(nanos(one["first_failure"])), str(nanos(one["last_failure"]))) for one in short])
victims = [(victim["workload"], *where(one), str(victim["failed"])) for one in short for victim in one["victims"]]
same("victims", answers["victims"], victims)
workloads = report["workloads"]
same("connects", answers["connects"], [(one["name"], str(one["connects"])) for one in workloads if one["connects"]])
ranges = {netns: json.loads(found) for netns, found in answers["ranges"]}
for one in short:
    assert ranges[str(one["netns"])] == one["ports"]["range"], (ranges, one["ports"]["range"])
lives = {name: (int(count), float(least), float(mean)) for name, count, least, mean, _ in answers["lifetimes"] if int(count)}
for one in workloads:
    told = one["lifetime_ms"]
    if told["count"] and one["name"] != "unknown":
        count, least, mean = lives[one["name"]]
        assert count == told["count"] and abs(least - told["min"]) < 1e-6, (one["name"], lives[one["name"]], told)
        assert abs(mean - told["mean"]) < 1e-6 * max(1, mean), (one["name"], mean, told)
entered = [(one["name"], str(one["time_wait"]["entered"])) for one in workloads if one["time_wait"]["entered"]]
same("time_waits", answers["time_waits"], entered)
seconds = sum(int(row[2]) for row in answers["seconds"])
assert seconds == sum(one["failed"]["EADDRNOTAVAIL"] for one in short), seconds
assert sum(int(row[-1]) for row in answers["open"]) == report["flows"], answers["open"]
assert len({row[0] for row in answers["transitions"]}) > 0
print(len(answers))

"""Opens the recording named by the first argument as it is, in three libraries, and prints the worst destination as each finds it.

One JSON object: {"pyarrow": [addr, port, failed], "polars": [...], "duckdb": [...], "columns": {...}}.
"""

import json
import sys

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

path = sys.argv[1]
found = {}

events = pa.ipc.open_file(path).read_all()
failed = events.filter(pc.and_kleene(pc.equal(events["kind"], "connect_failed"), pc.equal(events["errno"], "EADDRNOTAVAIL")))
worst = failed.group_by(["remote_addr", "remote_port"]).aggregate([([], "count_all")]).sort_by([("count_all", "descending")])
found["pyarrow"] = [worst["remote_addr"][0].as_py(), worst["remote_port"][0].as_py(), worst["count_all"][0].as_py()]

frame = pl.read_ipc(path)
worst = (
    frame.filter((pl.col("kind") == "connect_failed") & (pl.col("errno") == "EADDRNOTAVAIL"))
    .group_by("remote_addr", "remote_port")
    .len()
    .sort("len", descending=True)
)
found["polars"] = list(worst.row(0))

found["duckdb"] = list(
    duckdb.sql(
        """
        select remote_addr, remote_port, count(*) as failed
        from events where kind = 'connect_failed' and errno = 'EADDRNOTAVAIL'
        group by all order by failed desc limit 1
        """
    ).fetchall()[0]
)

# With names, as FORMAT.md has it.
names = duckdb.sql(
    """
    select e.remote_addr, e.remote_port, p.comm, p.detail->>'cmdline' as cmdline, count(*) as attempts
    from events e asof left join (select time, pid, comm, detail from events where kind = 'process') p
         on e.pid = p.pid and e.time >= p.time
    where e.kind = 'transition' and e.new_state = 'SYN_SENT'
    group by all order by attempts desc
    """
).fetchall()[0]
found["names"] = list(names)

found["columns"] = {field.name: str(field.type) for field in events.schema}
found["rows"] = [events.num_rows, frame.height]
found["first"] = events["time"][0].value
json.dump(found, sys.stdout)

"""`menura data …`: look at datasets, check them, and make new ones of old ones."""

from __future__ import annotations

import typer

from menura.cli.data import check, compact, convert, delete, info, merge, rename, split, stats, trim, view

app = typer.Typer(help="Look at datasets, check them, make new ones of old ones.", no_args_is_help=True)
app.command("info")(info.info)
app.command("check")(check.check)
app.command("stats")(stats.stats)
app.command("view")(view.view)
app.command("convert")(convert.convert)
app.command("merge")(merge.merge)
app.command("split")(split.split)
app.command("trim")(trim.trim)
app.command("delete")(delete.delete)
app.command("rename")(rename.rename)
app.command("compact")(compact.compact)

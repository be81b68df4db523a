"""`gentax domains`"""

from __future__ import annotations

from gentax.cli.options import Json, write_result
from gentax.cli.show import console, table


def domains(json: Json = None) -> None:
    """List every domain, its levels, and what would enable those that cannot run here.

    Example: `gentax domains`
    """
    from gentax.domains import domains as registered
    from gentax.domains import missing

    records = registered()
    table(
        "Domains",
        ["name", "state", "default level", "in the suite"],
        [
            [
                r.name,
                "not installed" if missing(r) else "ready",
                r.default_level,
                "target only" if r.target_only else "source, target",
            ]
            for r in records.values()
        ],
    )
    for record in records.values():
        console.print(f"\n[bold]{record.name}[/]  {record.about}")
        console.print(f"  {record.origin}\n  Licence: {record.licence}", markup=False)
        if missing(record):
            console.print(f"  To enable it: {record.enable}", markup=False)
        for name, level in record.levels.items():
            console.print(f"    {name:28} {level.about} (at most {level.horizon} steps)", markup=False)
    write_result(
        json,
        {
            r.name: {
                "ready": not missing(r),
                "levels": list(r.levels),
                "default": r.default_level,
                "licence": r.licence,
                "target_only": r.target_only,
                "enable": r.enable,
            }
            for r in records.values()
        },
    )

"""What the shipped fit is worth: leave-one-domain-out error, by each feature alone, against their mean.

python benchmarks/forecast.py [--fit sources]
"""

from __future__ import annotations

import argparse

from gentax.metrics.forecast import FEATURES, read_fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", default="sources")
    fit = read_fit(parser.parse_args().fit)
    print(f"{fit.about}, {fit.steps} steps, from {fit.base}")
    names = [name for name in FEATURES if all(name in row.features for row in fit.rows)]
    print(f"  {'source':12}{'tax %':>8}{'95 % interval':>18}{'gain at home':>14}" + "".join(f"{n:>11}" for n in names))
    for row in fit.rows:
        limits = f"{100 * row.tax_low:.1f} to {100 * row.tax_high:.1f}"
        known = "".join(f"{row.features[name]:11.2f}" for name in names)
        print(f"  {row.source:12}{100 * row.tax:8.1f}{limits:>18}{row.delta_id:14.1f}{known}")
    print("  leave-one-domain-out error (root mean square, points):")
    mean = fit.regress(())
    print(f"    {100 * mean.error:5.1f}  the mean of the others")
    for name in names:
        line = fit.regress((name,))
        print(f"    {100 * line.error:5.1f}  {name}: {FEATURES[name]}")
    if "kl" in names:
        origin = fit.regress(("kl",), intercept=False)
        print(f"    {100 * origin.error:5.1f}  kl, through the origin, which is what `gentax tax --forecast-only` uses")
    print(f"    {100 * mean.known:5.1f}  standard error of the taxes themselves")


if __name__ == "__main__":
    main()

"""The three steps of the synchronisation that are no SQL. Each may be repeated: it replaces what it wrote before."""

import csv

import databases

EXTRACTED = "data/sales.csv"
TRANSFORMED = "data/sales_with_totals.csv"


def extract(day):
    query = f"SELECT id, quantity, price_cents FROM sales WHERE sale_date = '{day}' ORDER BY id"
    databases.export_csv("SHOP_DB", "sqlite:///data/shop.db", query, EXTRACTED)


def transform():
    """Adds total = quantity * price to each line. Lines go through one by one: memory does not grow with the file."""
    sales = 0
    total_cents = 0
    with open(EXTRACTED, newline="") as source, open(TRANSFORMED, "w", newline="") as target:
        lines = csv.reader(source)
        out = csv.writer(target, lineterminator="\n")
        out.writerow(next(lines) + ["total_cents"])
        for sale_id, quantity, price_cents in lines:
            total = int(quantity) * int(price_cents)
            out.writerow([sale_id, quantity, price_cents, total])
            sales += 1
            total_cents += total
    print(f"{sales} sales, {total_cents / 100:.2f} in total")
    return {"sales": sales, "total_cents": total_cents}


def stage():
    columns = ["sale_id", "quantity", "price_cents", "total_cents"]
    databases.replace_from_csv("REPORTING_DB", "sqlite:///data/reporting.db", "sales_staging", columns, TRANSFORMED)

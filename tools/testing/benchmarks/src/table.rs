// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table.

use comfy_table::{presets::ASCII_MARKDOWN, CellAlignment, ContentArrangement, Table};

use crate::measure::Row;

/// All rows, with the benchmark that each is of.
pub(crate) fn of(rows: &[(String, Row)]) -> String {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["benchmark", "what", "median", "spread", "against", "ratio"]);
    for index in [2, 3, 5] {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut last = "";
    for (benchmark, row) in rows {
        let name = if benchmark == last {
            ""
        } else {
            benchmark.as_str()
        };
        table.add_row([
            name,
            &row.what,
            &row.median,
            &row.spread,
            &row.against,
            &row.ratio,
        ]);
        last = benchmark;
    }
    table.to_string()
}

/// Microseconds, for people.
pub(crate) fn time(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.0} us")
    } else {
        format!("{:.1} ms", us / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_is_named_once() {
        let row = Row {
            what: "stop".to_owned(),
            median: time(900.0),
            ..Row::default()
        };
        let text = of(&[("x".to_owned(), row.clone()), ("x".to_owned(), row)]);
        assert_eq!(text.matches("| x ").count(), 1, "{text}");
        assert_eq!(text.matches("900 us").count(), 2, "{text}");
        assert_eq!(time(12_345.0), "12.3 ms");
    }
}

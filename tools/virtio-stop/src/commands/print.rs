// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the commands that only show something print with.

use std::io::{ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use virtio_stop::{Error, Result};

/// A document in JSON, over several lines. As [`text`].
pub(crate) fn document(document: &impl Serialize) -> Result<bool> {
    let json = serde_json::to_string_pretty(document);
    text(&(json.map_err(|error| Error::Output(error.into()))? + "\n"))
}

/// A document in JSON, on a line. As [`text`].
pub(crate) fn line(document: &impl Serialize) -> Result<bool> {
    let json = serde_json::to_string(document);
    text(&(json.map_err(|error| Error::Output(error.into()))? + "\n"))
}

/// Text with styles, which are left out unless it goes to a terminal that shows them. `false`: who
/// reads it has seen enough, and has closed the other end of the pipe.
pub(crate) fn text(text: &str) -> Result<bool> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::Output(error)),
    }
}

/// What was printed is no less than all that was done, unlike a table: nobody has read enough.
pub(crate) fn heard(printed: Result<bool>) -> Result<()> {
    match printed? {
        true => Ok(()),
        false => Err(Error::Output(ErrorKind::BrokenPipe.into())),
    }
}

/// A remark beside what was asked for.
pub(crate) fn note(text: &str) {
    // Nobody else could be told that it fails.
    let _ = writeln!(
        anstream::stderr(),
        "{}",
        styled(Style::new().dimmed(), text)
    );
}

pub(crate) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The style of a state: green is as usual.
pub(crate) fn of_state(state: Option<&str>) -> Style {
    let color = match state {
        Some("running") => AnsiColor::Green,
        Some("failed" | "aborting") => AnsiColor::Red,
        Some("stopping" | "stopped" | "resuming") => AnsiColor::Yellow,
        _ => return Style::new().dimmed(),
    };
    Style::new().fg_color(Some(color.into()))
}

/// A cell of a table, with its style.
pub(crate) struct Cell(Style, String);

impl Cell {
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self(Style::new(), text.into())
    }

    pub(crate) fn styled(style: Style, text: impl Into<String>) -> Self {
        Self(style, text.into())
    }

    fn width(&self) -> usize {
        self.1.chars().count()
    }
}

/// Rows with their columns aligned; the last one is as long as it is.
pub(crate) fn table(rows: &[Vec<Cell>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut blanks = 0;
        for (cell, width) in row.iter().zip(&widths).filter(|(cell, _)| cell.width() > 0) {
            text.push_str(&" ".repeat(blanks));
            text.push_str(&styled(cell.0, &cell.1));
            blanks = width - cell.width() + 2;
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_heard_fails_if_nobody_listens() {
        assert!(heard(Ok(true)).is_ok());
        assert!(matches!(heard(Ok(false)), Err(Error::Output(_))));
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
        let rows = [
            vec![
                Cell::plain("a"),
                Cell::styled(red, "größer"),
                Cell::plain("c"),
            ],
            vec![Cell::plain("long"), Cell::plain("b"), Cell::plain("")],
        ];
        let text = anstream::adapter::strip_str(&table(&rows)).to_string();
        assert_eq!(text, "a     größer  c\nlong  b\n");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `check`: whether a stop would work, and what would wait for it.

use anstyle::{AnsiColor, Style};
use virtio_stop::check::{check as look, Finding, Severity, Verdict};
use virtio_stop::device::System;
use virtio_stop::{resolve, Exit, Result};

use super::print::{self, Cell};

pub(crate) fn check(system: &System, names: &[String], json: bool) -> Result<Exit> {
    let check = look(system, &resolve(system, names)?)?;
    if json {
        print::document(&check)?;
    } else {
        let rows: Vec<_> = check.findings.iter().map(row).collect();
        let all = check.devices.join(", ");
        let verdict = match check.verdict {
            Verdict::Yes => format!("A stop of {all} would work.\n"),
            Verdict::WithWarnings => format!("A stop of {all} would work, see the warnings.\n"),
            Verdict::No => format!("A stop of {all} would not work.\n"),
        };
        print::text(&(print::table(&rows) + &verdict))?;
    }
    Ok(match check.verdict {
        Verdict::Yes => Exit::Done,
        Verdict::WithWarnings => Exit::Failed,
        Verdict::No => Exit::Usage,
    })
}

fn row(finding: &Finding) -> Vec<Cell> {
    let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
    let severity = match finding.severity {
        Severity::Error => Cell::styled(color(AnsiColor::Red).bold(), "error"),
        Severity::Warning => Cell::styled(color(AnsiColor::Yellow), "warning"),
        Severity::Note => Cell::styled(Style::new().dimmed(), "note"),
    };
    let devices = match finding.devices.is_empty() {
        true => "all".into(),
        false => finding.devices.join(","),
    };
    vec![
        severity,
        Cell::plain(devices),
        Cell::plain(&finding.message),
    ]
}

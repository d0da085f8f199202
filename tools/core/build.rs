// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT

//! Copies of the pure files with a fault planted in each, for `tests/mutants.rs`: a model checker
//! that finds nothing in them checks nothing.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::Path, //
};

/// A fault: its name, the file, what is there, and what is put there instead.
type Fault = (&'static str, &'static str, &'static str, &'static str);

const FAULTS: &[Fault] = &[
    (
        "nobody_looks_at_rest",
        "machine/time.rs",
        "            _ => self.handshake != Handshake::Idle,",
        "            Phase::Rest(_) => false,\n            _ => self.handshake != Handshake::Idle,",
    ),
    (
        "a_late_stop_is_forgotten_with_the_driver",
        "machine/world.rs",
        "        self.call_off(now, Error::Gone);",
        "        self.call_off(now, Error::Gone);\n        self.handshake = Handshake::Idle;",
    ),
    (
        "a_resume_without_notifications",
        "machine/outcome.rs",
        "        self.effects.notify = true;\n        self.rest(note);",
        "        self.rest(note);",
    ),
    (
        "let_go_while_the_stop_is_pending",
        "machine/outcome.rs",
        "        self.look_at = now;",
        "        self.look_at = now;\n        self.unquiesce();",
    ),
    (
        "let_go_twice",
        "machine.rs",
        "if self.above == Above::Quiesced {",
        "if self.above != Above::Working {",
    ),
    (
        "both_bits_are_taken_for_running",
        "status.rs",
        "self.has(Self::SUSPEND) => Seen::Between,",
        "self.has(Self::SUSPEND) => Seen::Running,",
    ),
    (
        "garbage_is_an_answer",
        "status.rs",
        "        if !self.has(Self::NEGOTIATED) {\n            return Seen::Garbage;\n        }",
        "",
    ),
    (
        "ones_are_a_verdict",
        "machine/handshake.rs",
        "Seen::Ones if !present =>",
        "Seen::Ones if present || !present =>",
    ),
    (
        "nobody_asks_in_the_other_form",
        "machine/handshake.rs",
        "                now >= asked.saturating_add(timeout_us - timeout_us / 4)",
        "                let _ = timeout_us;\n                false",
    ),
    (
        "a_stopper_that_is_not_answered",
        "machine/outcome.rs",
        "        if let Phase::Quiescing { by, .. } = self.phase {\n            self.answer(by, Err(error));\n        }",
        "        let _ = error;",
    ),
    (
        "a_stop_without_a_time_limit",
        "machine/time.rs",
        "            | Phase::Stopping { until, .. }\n            | Phase::Resuming { until, .. } => Some(until),",
        "            | Phase::Resuming { until, .. } => Some(until),\n            Phase::Stopping { .. } => None,",
    ),
    (
        "a_generation_that_stays",
        "machine.rs",
        "        self.generation += 1;\n        self.look_wanted = false;",
        "        self.look_wanted = false;",
    ),
    (
        "a_reset_that_is_not_noticed",
        "field.rs",
        "            epoch: self.known.epoch + 1,",
        "            epoch: self.known.epoch,",
    ),
    (
        "a_resume_that_is_written_twice",
        "machine/handshake.rs",
        "let may = self.protocol() == Some(Protocol::DeviceStop);",
        "let may = self.protocol().is_some();",
    ),
    (
        "core_writes_what_adds_nothing",
        "status.rs",
        "if is_answer && theirs & !current.0 == 0 {",
        "if is_answer && !is_answer {",
    ),
    (
        "what_was_meant_for_virtqueues_that_are_gone",
        "machine/world.rs",
        "            ..Effects::NONE\n",
        "            ..self.effects\n",
    ),
    (
        "asked_to_suspend_during_a_write",
        "machine/handshake.rs",
        "!protocol.allows_buffers() && self.configuring > 0",
        "!protocol.allows_buffers() && self.configuring > 1",
    ),
    (
        "sleep_while_the_driver_above_is_being_quiesced",
        "machine.rs",
        "self.state().0 == State::Stopping",
        "false",
    ),
];

const FILES: &[&str] = &[
    "field.rs",
    "machine.rs",
    "machine/action.rs",
    "machine/ask.rs",
    "machine/configure.rs",
    "machine/handshake.rs",
    "machine/normal.rs",
    "machine/outcome.rs",
    "machine/phase.rs",
    "machine/quiescing.rs",
    "machine/settings.rs",
    "machine/ticket.rs",
    "machine/time.rs",
    "machine/world.rs",
    "policy.rs",
    "state.rs",
    "status.rs",
];

fn main() -> Result<(), Box<dyn Error>> {
    let here = env::var("CARGO_MANIFEST_DIR")?;
    let out = env::var("OUT_DIR")?;
    let source = Path::new(&here).join("../../src");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut modules = String::new();
    for (name, file, from, to) in FAULTS {
        let folder = Path::new(&out).join(name);
        fs::create_dir_all(folder.join("machine"))?;
        for copied in FILES {
            let mut text = without_tests(&fs::read_to_string(source.join(copied))?);
            if copied == file {
                if text.matches(from).count() != 1 {
                    return Err(format!("{name}: {file} has not once: {from}").into());
                }
                text = text.replace(from, to);
            }
            fs::write(folder.join(copied), text)?;
        }
        write!(
            modules,
            "pub mod {name} {{\n    #[path = {folder:?}]\n    pub mod module {{\n        pub mod field;\n        \
             pub mod machine;\n        pub mod policy;\n        pub mod state;\n        pub mod status;\n    }}\n    \
             #[path = {lifecycle:?}]\n    pub mod lifecycle;\n}}\n",
            lifecycle = Path::new(&here).join("tests/lifecycle/mod.rs"),
        )?;
    }
    fs::write(Path::new(&out).join("mutants.rs"), modules)?;
    Ok(())
}

/// Their own tests would fail, and look for files elsewhere.
fn without_tests(text: &str) -> String {
    let text = text.replace("#[cfg(test)]\nmod tests;\n", "");
    match text.find("#[cfg(test)]") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

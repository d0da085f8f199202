// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which test programs there are, which of them a tier runs, and in which guests: plan.toml.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// A guest whose programs have a budget of more than this gets no further one: a boot takes a tenth of it.
const GUEST_SECONDS: u64 = 150;

/// What is wrong with the plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It can't be read.
    #[error("can't read {0}")]
    Read(String, #[source] std::io::Error),
    /// It is no TOML, or has other keys.
    #[error("{0} is no plan")]
    Parse(String, #[source] toml::de::Error),
}

/// Which tests are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// On the stock kernel, in minutes.
    Test,
    /// On the debug kernel, in minutes.
    TestDebug,
    /// On the kernel that looks for data races.
    TestKcsan,
    /// On the newest kernel of Debian's sid and experimental.
    TestSid,
    /// All that there is, on the stock and the debug kernel.
    TestAll,
}

impl Tier {
    /// Its target in the Makefile.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::TestDebug => "test-debug",
            Self::TestKcsan => "test-kcsan",
            Self::TestSid => "test-sid",
            Self::TestAll => "test-all",
        }
    }

    /// For how long a guest may say nothing: a result of all cycles takes its time. A test's own wait (PATIENCE; what the tests in ends.d
    /// give a Debian guest) ends before, since the test can say more about it.
    pub(crate) fn silence(self) -> Duration {
        Duration::from_secs(match self {
            Self::Test | Self::TestDebug | Self::TestKcsan | Self::TestSid => 600,
            Self::TestAll => 1800,
        })
    }
}

/// What a guest boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kernel {
    /// Debian's own.
    Stock,
    /// One with checks.
    Debug,
    /// The same, which looks for leaked memory besides.
    Leaks,
    /// One that looks for data races.
    Kcsan,
    /// The newest of Debian's sid and experimental.
    Sid,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stock => "stock",
            Self::Debug => "debug",
            Self::Leaks => "leaks",
            Self::Kcsan => "kcsan",
            Self::Sid => "sid",
        })
    }
}

/// What the devices offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// VIRTIO_F_DEVICE_STOP.
    DeviceStop,
    /// VIRTIO_F_SUSPEND.
    Suspend,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DeviceStop => "device-stop",
            Self::Suspend => "suspend",
        })
    }
}

/// By which protocols a program is run in `make test` and so on. `make test-all` runs it by both, on the stock and the debug kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Runs {
    Both,
    DeviceStop,
    Suspend,
    /// Only in `make test-all`.
    TestAll,
}

impl Runs {
    fn includes(self, protocol: Protocol) -> bool {
        match self {
            Self::Both => true,
            Self::DeviceStop => protocol == Protocol::DeviceStop,
            Self::Suspend => protocol == Protocol::Suspend,
            Self::TestAll => false,
        }
    }
}

/// A test program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    /// On the stock kernel; not at all if it is missing.
    stock: Option<Runs>,
    /// On the debug kernel, likewise.
    debug: Option<Runs>,
    /// On the debug kernel with a look for leaked memory, likewise.
    leaks: Option<Runs>,
    /// On the kernel that looks for data races, likewise.
    kcsan: Option<Runs>,
    /// On sid's kernel, likewise.
    sid: Option<Runs>,
    /// What it may take on two idle processors without KVM, on either kernel, without the boot.
    seconds: [u64; 2],
    /// How many cycles it does, in `make test` and `make test-debug`, and in `make test-all`: its argument.
    cycles: Option<[u64; 2]>,
}

impl Program {
    fn runs(&self, kernel: Kernel) -> Option<Runs> {
        match kernel {
            Kernel::Stock => self.stock,
            Kernel::Debug => self.debug,
            Kernel::Leaks => self.leaks,
            Kernel::Kcsan => self.kcsan,
            Kernel::Sid => self.sid,
        }
    }

    fn budget(&self, kernel: Kernel) -> Duration {
        let [stock, debug] = self.seconds;
        Duration::from_secs(match kernel {
            Kernel::Stock | Kernel::Sid => stock,
            Kernel::Debug => debug,
            Kernel::Leaks | Kernel::Kcsan => 2 * debug,
        })
    }

    fn cycles(&self, tier: Tier) -> Option<u64> {
        let [few, many] = self.cycles?;
        Some(if tier == Tier::TestAll { many } else { few })
    }
}

/// plan.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// tools/vm/boot: each program boots guests of its own, and no protocol matters.
    boot: BTreeMap<String, Program>,
    /// The reference device, with drivers that are not ours: no protocol matters.
    vfio_user_virtio: BTreeMap<String, Program>,
    /// The module. What ends its guest, or wants other devices, is called end_*, and has a guest of its own.
    virtio_device_stop: BTreeMap<String, Program>,
}

/// A program that is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its name, without .sh.
    pub(crate) name: String,
    /// Its argument.
    pub(crate) cycles: Option<u64>,
    /// What it may take.
    pub(crate) budget: Duration,
}

/// A guest, with the programs that run in it one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    /// The kselftest suite.
    pub(crate) suite: &'static str,
    /// Its kernel.
    pub(crate) kernel: Kernel,
    /// What its devices offer.
    pub(crate) protocol: Protocol,
    /// The programs.
    pub(crate) steps: Vec<Step>,
}

impl Guest {
    /// What its programs may take.
    pub(crate) fn budget(&self) -> Duration {
        self.steps.iter().map(|step| step.budget).sum()
    }

    /// Whether its program has it to itself.
    pub(crate) fn is_alone(&self) -> bool {
        self.steps.iter().any(|step| is_alone(&step.name))
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.suite {
            BOOT => f.pad("boot"),
            REFERENCE_DEVICE => f.pad("reference device"),
            _ => f.pad(&format!("{} {}", self.kernel, self.protocol)),
        }
    }
}

const BOOT: &str = "boot";
const REFERENCE_DEVICE: &str = "vfio_user_virtio";
const MODULE: &str = "virtio_device_stop";

/// Whether the program has a guest of its own. Those of a kselftest suite share one.
fn is_alone(name: &str) -> bool {
    !name.starts_with("test_")
}

impl Plan {
    /// Reads the plan.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn read(path: &std::path::Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::Read(name.clone(), error))?;
        toml::from_str(&text).map_err(|error| Error::Parse(name, error))
    }

    /// The guests of a tier with the programs that `wanted` has, those that take longest first.
    pub(crate) fn guests(&self, tier: Tier, wanted: impl Fn(&str) -> bool) -> Vec<Guest> {
        let mut guests = Vec::new();
        for (suite, kernel, protocol) in Self::places(tier) {
            let mut shared: Option<Guest> = None;
            for (name, program) in self.programs(suite) {
                let Some(runs) = program.runs(kernel) else {
                    continue;
                };
                if !(tier == Tier::TestAll || runs.includes(protocol)) || !wanted(name) {
                    continue;
                }
                let step = Step {
                    name: name.clone(),
                    cycles: program.cycles(tier),
                    budget: program.budget(kernel),
                };
                let guest = |step| Guest {
                    suite,
                    kernel,
                    protocol,
                    steps: vec![step],
                };
                if is_alone(name) {
                    guests.push(guest(step));
                    continue;
                }
                let full = |guest: &Guest| {
                    guest.budget() + step.budget > Duration::from_secs(GUEST_SECONDS)
                };
                match &mut shared {
                    Some(shared) if !full(shared) => shared.steps.push(step),
                    _ => guests.extend(shared.replace(guest(step))),
                }
            }
            guests.extend(shared);
        }
        guests.sort_by_key(|guest| std::cmp::Reverse(guest.budget()));
        guests
    }

    /// What a tier leaves out, a line a kernel and protocol, if `make test-all` runs it.
    pub(crate) fn left_out(&self, tier: Tier) -> Vec<String> {
        let mut lines = Vec::new();
        // `make test-all` runs nothing on the kernels of the other two.
        if matches!(tier, Tier::TestAll | Tier::TestKcsan | Tier::TestSid) {
            return lines;
        }
        for (_, kernel, protocol) in Self::places(tier).filter(|place| place.0 == MODULE) {
            let out = |program: &Program| {
                let runs = program.runs(kernel);
                runs.is_some_and(|runs| !runs.includes(protocol))
            };
            let programs = self.virtio_device_stop.iter();
            let names: Vec<&str> = programs
                .filter(|(_, program)| out(program))
                .map(|(name, _)| name.as_str())
                .collect();
            if !names.is_empty() {
                lines.push(format!("{kernel} {protocol}: {}", names.join(" ")));
            }
        }
        let programs = self.vfio_user_virtio.iter().chain(&self.virtio_device_stop);
        for (name, program) in programs {
            match program.cycles {
                Some([few, many]) if few < many => {
                    lines.push(format!("{name}: {} of {many} cycles", many - few));
                }
                _ => {}
            }
        }
        lines
    }

    fn programs(&self, suite: &str) -> &BTreeMap<String, Program> {
        match suite {
            BOOT => &self.boot,
            REFERENCE_DEVICE => &self.vfio_user_virtio,
            _ => &self.virtio_device_stop,
        }
    }

    /// The suites, kernels and protocols of a tier.
    fn places(tier: Tier) -> impl Iterator<Item = (&'static str, Kernel, Protocol)> {
        use Kernel::{Debug, Kcsan, Leaks, Sid, Stock};
        use Protocol::{DeviceStop, Suspend};
        [
            (BOOT, Stock, DeviceStop),
            (REFERENCE_DEVICE, Stock, DeviceStop),
            (MODULE, Stock, DeviceStop),
            (MODULE, Stock, Suspend),
            (MODULE, Debug, DeviceStop),
            (MODULE, Debug, Suspend),
            (MODULE, Leaks, DeviceStop),
            (MODULE, Leaks, Suspend),
            (BOOT, Kcsan, DeviceStop),
            (MODULE, Kcsan, DeviceStop),
            (MODULE, Kcsan, Suspend),
            (MODULE, Sid, DeviceStop),
            (MODULE, Sid, Suspend),
        ]
        .into_iter()
        .filter(move |(_, kernel, _)| match tier {
            Tier::Test => *kernel == Stock,
            Tier::TestDebug => matches!(kernel, Debug | Leaks),
            Tier::TestKcsan => *kernel == Kcsan,
            Tier::TestSid => *kernel == Sid,
            Tier::TestAll => !matches!(kernel, Kcsan | Sid),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    fn testing() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn plan() -> Plan {
        Plan::read(&testing().join("plan.toml")).unwrap()
    }

    #[test]
    fn tests_lose_patience_before_they_are_ended() {
        let mut found = 0;
        for suite in [MODULE, REFERENCE_DEVICE] {
            for entry in std::fs::read_dir(testing().join("selftests").join(suite)).unwrap() {
                let script = std::fs::read(entry.unwrap().path()).unwrap();
                let script = String::from_utf8_lossy(&script);
                for value in script
                    .lines()
                    .filter_map(|line| line.strip_prefix("PATIENCE="))
                {
                    let patience = Duration::from_secs(value.parse().unwrap());
                    let margin = Duration::from_secs(30);
                    assert!(patience + margin < Tier::Test.silence(), "{value}");
                    found += 1;
                }
            }
        }
        assert!(found > 0);
    }

    #[test]
    fn the_plan_has_every_program_that_there_is_and_no_other() {
        let plan = plan();
        for suite in [MODULE, REFERENCE_DEVICE] {
            let files: BTreeSet<String> =
                std::fs::read_dir(testing().join("selftests").join(suite))
                    .unwrap()
                    .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
                    .filter_map(|name| name.strip_suffix(".sh").map(str::to_owned))
                    .filter(|name| !is_alone(name))
                    .collect();
            let planned = plan.programs(suite).keys().filter(|name| !is_alone(name));
            assert!(planned.eq(files.iter()), "{suite}: {files:?}");
        }
        let functions: BTreeSet<String> = std::fs::read_dir(testing().join("ends.d"))
            .unwrap()
            .flat_map(|entry| {
                let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
                let names = text.lines().filter_map(|line| line.strip_suffix("() {"));
                names.map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|name| name.starts_with("end_") || name.starts_with("boot_"))
            .collect();
        let planned: BTreeSet<String> = plan
            .boot
            .keys()
            .chain(plan.vfio_user_virtio.keys())
            .chain(plan.virtio_device_stop.keys())
            .filter(|name| is_alone(name))
            .cloned()
            .collect();
        assert_eq!(planned, functions);
    }

    #[test]
    fn test_all_leaves_nothing_out() {
        let plan = plan();
        let all = plan.guests(Tier::TestAll, |_| true);
        for tier in [Tier::Test, Tier::TestDebug] {
            for guest in plan.guests(tier, |_| true) {
                for step in &guest.steps {
                    assert!(all.iter().any(|all| {
                        all.kernel == guest.kernel
                            && all.protocol == guest.protocol
                            && all.steps.iter().any(|other| other.name == step.name)
                    }));
                }
            }
        }
    }

    fn parse(text: &str) -> Plan {
        toml::from_str(text).unwrap()
    }

    const SMALL: &str = r#"
        [boot]
        boot_x = { kcsan = "both", seconds = [0, 10] }
        [vfio_user_virtio]
        end_device = { stock = "both", seconds = [10, 0], cycles = [3, 50] }
        test_device = { stock = "both", seconds = [5, 0] }
        [virtio_device_stop]
        end_a = { stock = "suspend", debug = "test-all", seconds = [20, 60], cycles = [5, 500] }
        test_b = { stock = "both", debug = "both", kcsan = "device-stop", sid = "suspend", seconds = [140, 140] }
        test_c = { stock = "both", debug = "device-stop", leaks = "suspend", kcsan = "suspend", sid = "both", seconds = [10, 30] }
        test_d = { stock = "both", seconds = [1, 0] }
    "#;

    fn names(guests: &[Guest]) -> Vec<String> {
        let guest = |guest: &Guest| {
            let steps: Vec<_> = guest.steps.iter().map(|step| step.name.as_str()).collect();
            format!("{guest}: {}", steps.join(" "))
        };
        guests.iter().map(guest).collect()
    }

    #[test]
    fn guests_are_filled_and_the_longest_come_first() {
        let plan = parse(SMALL);
        assert_eq!(
            names(&plan.guests(Tier::Test, |_| true)),
            [
                "stock device-stop: test_b test_c",
                "stock suspend: test_b test_c",
                "stock suspend: end_a",
                "reference device: end_device",
                "reference device: test_device",
                "stock device-stop: test_d",
                "stock suspend: test_d",
            ]
        );
        assert_eq!(
            names(&plan.guests(Tier::TestDebug, |_| true)),
            [
                "debug device-stop: test_b",
                "debug suspend: test_b",
                "leaks suspend: test_c",
                "debug device-stop: test_c",
            ]
        );
        assert_eq!(
            names(&plan.guests(Tier::TestSid, |_| true)),
            ["sid suspend: test_b test_c", "sid device-stop: test_c"]
        );
        assert_eq!(
            names(&plan.guests(Tier::Test, |name| name == "end_a")).len(),
            1
        );
        assert_eq!(
            names(&plan.guests(Tier::TestAll, |name| name == "end_a")).len(),
            4
        );
        let all = plan.guests(Tier::TestAll, |_| true);
        assert!(all.iter().all(|guest| guest.kernel != Kernel::Sid));
    }

    #[test]
    fn only_one_tier_looks_for_races() {
        let plan = parse(SMALL);
        assert_eq!(
            names(&plan.guests(Tier::TestKcsan, |_| true)),
            [
                "kcsan device-stop: test_b",
                "kcsan suspend: test_c",
                "boot: boot_x",
            ]
        );
        assert!(plan
            .guests(Tier::TestAll, |_| true)
            .iter()
            .all(|guest| guest.kernel != Kernel::Kcsan));
    }

    #[test]
    fn cycles_are_the_tiers() {
        let plan = parse(SMALL);
        let cycles = |tier| {
            plan.guests(tier, |name| name == "end_a")
                .remove(0)
                .steps
                .remove(0)
                .cycles
        };
        assert_eq!(cycles(Tier::Test), Some(5));
        assert_eq!(cycles(Tier::TestAll), Some(500));
    }

    #[test]
    fn what_is_left_out_is_named() {
        let plan = parse(SMALL);
        assert_eq!(
            plan.left_out(Tier::Test),
            [
                "stock device-stop: end_a",
                "end_device: 47 of 50 cycles",
                "end_a: 495 of 500 cycles"
            ]
        );
        assert_eq!(
            plan.left_out(Tier::TestDebug),
            [
                "debug device-stop: end_a",
                "debug suspend: end_a test_c",
                "leaks device-stop: test_c",
                "end_device: 47 of 50 cycles",
                "end_a: 495 of 500 cycles"
            ]
        );
        assert!(plan.left_out(Tier::TestAll).is_empty());
        assert!(plan.left_out(Tier::TestSid).is_empty());
    }

    #[test]
    fn a_plan_with_a_spelling_mistake_is_refused() {
        assert!(toml::from_str::<Plan>(
            "[virtio_device_stop]\nx = { stok = \"both\", seconds = [1, 1] }"
        )
        .is_err());
    }
}

//! Processes on this machine: their cores and their processor time.

use std::fs;
use std::process::{Command, Stdio};

/// User and system time of all its threads so far, those that have ended too; in steps of 10 ms.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Behind the name, which may hold anything, the third field is the first; proc(5).
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Keeps a process, with all its threads, on one core.
pub(crate) fn pin(process: u32, core: u32) {
    let pinned = Command::new("taskset")
        .args(["-acp", &core.to_string(), &process.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(
        pinned.is_ok_and(|status| status.success()),
        "taskset (util-linux) pins"
    );
}

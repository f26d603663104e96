//! What a process and all that it has started use, as Linux counts it in `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// What was used up to now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Of all cores, in user and kernel.
    pub(crate) cpu: Duration,
    /// Of all processes together; what they share counts for each.
    pub(crate) resident_bytes: u64,
}

/// What a process and its descendants use. Nothing, if it is gone.
pub(crate) fn usage(pid: u32) -> Usage {
    let mut sum = Usage::default();
    for pid in family(pid) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        sum.cpu += Duration::from_secs_f64(ticks(&stat).unwrap_or(0) as f64 / ticks_per_second());
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        sum.resident_bytes += resident(&status).unwrap_or(0);
    }
    sum
}

/// Whether `/proc` shows the processes that this one sees. In a container of its own it may show those of the machine, under
/// other numbers.
pub(crate) fn is_seen() -> bool {
    let shown = fs::read_link("/proc/self").ok();
    shown.and_then(|link| link.to_str()?.parse().ok()) == Some(std::process::id())
}

/// A process and its descendants that are there now.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    if !is_seen() {
        return vec![pid];
    }
    let Ok(entries) = fs::read_dir("/proc") else { return vec![pid] };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<u32, u32> = pids
        .filter_map(|pid| Some((pid, parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect();
    let mut members = vec![pid];
    let mut seen = 0;
    while let Some(&member) = members.get(seen) {
        members.extend(parents.iter().filter(|(_, parent)| **parent == member).map(|(child, _)| *child));
        seen += 1;
    }
    members
}

/// The fields of `stat` that follow the name, which may contain anything.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    stat.rsplit_once(") ").map(|(_, rest)| rest.split_whitespace())
}

fn parent(stat: &str) -> Option<u32> {
    fields(stat)?.nth(1)?.parse().ok()
}

/// `utime` and `stime`, fields 14 and 15 of proc(5).
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = fields(stat)?.skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn ticks_per_second() -> f64 {
    static TICKS: OnceLock<f64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let output = Command::new("getconf").arg("CLK_TCK").output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.and_then(|text| text.parse().ok()).unwrap_or(100.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_are_read_past_a_name_with_parentheses() {
        let stat = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 50 6 7 8 20 0 1 0 112233 9 9 184467 1 1 0 0";
        assert_eq!((parent(stat), ticks(stat)), (Some(3), Some(56)));
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t  2048 kB\n"), Some(2 << 20));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_this_process_has_started_counts_as_its_own() {
        if !is_seen() {
            println!("not tested: /proc shows the processes of somebody else");
            return;
        }
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let members = family(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(members.contains(&child.id()), "{members:?}");
        assert!(usage(std::process::id()).resident_bytes > 0);
    }
}

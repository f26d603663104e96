//! Hits: how many a second one core serves, how long they take, and what each costs the proxy.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use super::args::Ask as Asked;
use super::client::{Ask, HOST, get};
use super::{Bench, need};
use crate::proxy::{Kind, now, usage};

const CONNECTIONS: u32 = 64;
const SIZES: [(&str, u64); 2] = [("1 KiB", 1024), ("100 KiB", 100 * 1024)];
/// The proxies' core, and that of the load and the origin.
const CORES: [usize; 2] = [0, 1];
const WARM_UP: u64 = 1;

/// One measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sample {
    /// Requests a second.
    rate: f64,
    /// In microseconds, as the two after it.
    p50: f64,
    p99: f64,
    cpu: f64,
    /// Of what else this machine did meanwhile, in cores.
    noise: f64,
    /// Answers that were none, or not good.
    errors: u64,
}

/// # Errors
/// A program is missing, or a proxy does not answer.
pub(crate) fn run(kinds: &[Kind], asked: &Asked) -> io::Result<()> {
    need("wrk", "wrk")?;
    need("taskset", "util-linux")?;
    // All of them wait on the same core while one is asked.
    let benches = kinds.iter().map(|kind| Bench::start(kind, |place| place.core = CORES.first().copied()));
    let benches = benches.collect::<io::Result<Vec<_>>>()?;
    println!(
        "hits over {CONNECTIONS} connections, a core each for the proxy and for the load; medians of {} runs",
        asked.repeats
    );
    println!("| proxy | size | requests/s | p50 µs | p99 µs | CPU µs/request | others' cores | errors |");
    println!("| --- | --- | --: | --: | --: | --: | --: | --: |");
    let mut ratios = Vec::new();
    for (name, size) in SIZES {
        let target = format!("/hit?size={size}");
        let mut samples = vec![Vec::new(); benches.len()];
        for bench in &benches {
            let answer = get(bench.proxy.address, &Ask::of(&target))?;
            if !answer.is_right(size) {
                return Err(io::Error::other(format!(
                    "a proxy does not pass a body of {name} on: {answer:?}"
                )));
            }
            load(bench, &target, WARM_UP)?;
        }
        // In turn, so that a busy minute meets all of them.
        for _ in 0..asked.repeats {
            for (bench, samples) in benches.iter().zip(&mut samples) {
                samples.push(load(bench, &target, asked.seconds)?);
            }
        }
        let medians: Vec<Sample> = samples.iter().map(|samples| median(samples)).collect();
        for ((kind, bench), sample) in kinds.iter().zip(&benches).zip(&medians) {
            let Sample { rate, p50, p99, cpu, noise, errors } = sample;
            println!(
                "| {kind} | {name} | {rate:.0} | {p50:.0} | {p99:.0} | {cpu:.1} | {noise:.2} | {errors} |"
            );
            let requests = bench.origin.count(&target).requests;
            if requests > 1 {
                println!("{kind} asked the origin {requests} times for what it had");
            }
        }
        ratios.extend(beside(kinds, name, &medians));
    }
    ratios.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// The first of them beside each other one.
fn beside(kinds: &[Kind], size: &str, medians: &[Sample]) -> Vec<String> {
    let ([ours, others @ ..], [first, rest @ ..]) = (kinds, medians) else { return Vec::new() };
    let lines = others.iter().zip(rest).map(|(other, sample)| {
        let ratio = |ours: f64, theirs: f64| ours / theirs.max(f64::MIN_POSITIVE);
        format!(
            "{size}: {ours} / {other}: {:.2} of the requests/s, {:.2} of the p50, {:.2} of the p99, {:.2} of the CPU time",
            ratio(first.rate, sample.rate),
            ratio(first.p50, sample.p50),
            ratio(first.p99, sample.p99),
            ratio(first.cpu, sample.cpu),
        )
    });
    lines.collect()
}

fn load(bench: &Bench, target: &str, seconds: u64) -> io::Result<Sample> {
    let [_, core] = CORES;
    let url = format!("http://{}{target}", bench.proxy.address);
    let pid = bench.proxy.pid();
    let before = (usage(pid).cpu, busy(), own());
    let began = now();
    let output = Command::new("taskset")
        .args(["-c", &core.to_string(), "wrk", "--latency", "-t", "1"])
        .args(["-c", &CONNECTIONS.to_string(), "-d", &format!("{seconds}s")])
        // A cache may keep what other hosts say apart.
        .args(["-H", &format!("Host: {HOST}"), &url])
        .output()?;
    let took = began.elapsed().as_secs_f64();
    let cpu = usage(pid).cpu.saturating_sub(before.0);
    let (busy, own) = (busy() - before.1, own() - before.2);
    let text = String::from_utf8_lossy(&output.stdout);
    let mut sample = read(&text, cpu).ok_or_else(|| io::Error::other(format!("wrk failed: {text}")))?;
    sample.noise = ((busy - own - cpu.as_secs_f64()) / took).max(0.0);
    Ok(sample)
}

/// What wrk printed, with what the proxy used of the processor meanwhile.
fn read(text: &str, cpu: Duration) -> Option<Sample> {
    let after = |mark: &str| {
        let (_, rest) = text.split_once(mark)?;
        rest.split_whitespace().next()
    };
    let requests: f64 = text.lines().find_map(|line| {
        let (count, _) = line.trim().split_once(" requests in ")?;
        count.parse().ok()
    })?;
    let mut errors: u64 =
        after("Non-2xx or 3xx responses: ").and_then(|count| count.parse().ok()).unwrap_or(0);
    if let Some((_, line)) = text.split_once("Socket errors: ") {
        let line = line.lines().next().unwrap_or_default();
        let numbers = line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
        errors += numbers.sum::<u64>();
    }
    // At the beginning of a line: others end in such a share.
    let percentile = |mark: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(mark))?;
        microseconds(line.trim())
    };
    Some(Sample {
        rate: after("Requests/sec:")?.parse().ok()?,
        p50: percentile("50%")?,
        p99: percentile("99%")?,
        cpu: cpu.as_secs_f64() * 1e6 / requests.max(1.0),
        noise: 0.0,
        errors,
    })
}

/// `617.00us`, `1.02ms`, `1.00s`.
fn microseconds(text: &str) -> Option<f64> {
    let (number, times) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .iter()
        .find_map(|(unit, times)| Some((text.strip_suffix(unit)?, times)))?;
    Some(number.parse::<f64>().ok()? * times)
}

/// Each number by itself: the middle one of those that were measured.
fn median(samples: &[Sample]) -> Sample {
    let middle = |number: fn(&Sample) -> f64| {
        let mut numbers: Vec<f64> = samples.iter().map(number).collect();
        numbers.sort_unstable_by(f64::total_cmp);
        numbers.get(numbers.len() / 2).copied().unwrap_or_default()
    };
    Sample {
        rate: middle(|sample| sample.rate),
        p50: middle(|sample| sample.p50),
        p99: middle(|sample| sample.p99),
        cpu: middle(|sample| sample.cpu),
        noise: middle(|sample| sample.noise),
        errors: samples.iter().map(|sample| sample.errors).sum(),
    }
}

/// How long all cores together were busy since the machine started, in seconds: all columns but the idle ones.
fn busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let columns = text.lines().next().unwrap_or_default().split_whitespace().skip(1).enumerate();
    let ticks: f64 = columns
        .filter(|(column, _)| !matches!(column, 3 | 4 | 8 | 9))
        .filter_map(|(_, text)| text.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

/// How long this process and those that it waited for were busy, in seconds.
fn own() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(4).filter_map(|text| text.parse::<f64>().ok()).sum();
    ticks / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 10s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   650.00us  100.00us   5.00ms   90.00%
    Req/Sec    97.54k     1.00k   99.00k    72.50%
  Latency Distribution
     50%  617.00us
     75%  700.00us
     90%  800.00us
     99%    1.02ms
  1000000 requests in 10.00s, 1.20GB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 4
Requests/sec:  97540.12
Transfer/sec:    120.00MB
";

    #[test]
    fn what_wrk_prints_is_understood() {
        let sample = read(SAID, Duration::from_secs(10)).unwrap();
        let expected = Sample { rate: 97_540.12, p50: 617.0, p99: 1020.0, cpu: 10.0, noise: 0.0, errors: 7 };
        assert_eq!(sample, expected);
        assert_eq!(read("unable to connect", Duration::ZERO), None);
    }

    #[test]
    fn a_median_is_taken_of_each_number() {
        let sample = |rate, p50| Sample { rate, p50, ..Sample::default() };
        let middle = median(&[sample(1.0, 9.0), sample(5.0, 1.0), sample(3.0, 4.0)]);
        assert_eq!((middle.rate, middle.p50), (3.0, 4.0));
    }
}

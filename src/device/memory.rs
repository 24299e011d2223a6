//! Memory that the process can still use: what the kernel has free, or less under the limit of a control group or of the
//! process.

use std::fs;
use std::path::Path;

/// Memory of the host in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Installed memory, or the limit of the control group if that is lower.
    pub total_bytes: u64,
    /// Free memory within the same limit.
    pub available_bytes: u64,
}

/// The host's memory within the limits of the process's control groups (v1 and v2) and of the process itself (`ulimit -v`, `ulimit
/// -d`); `None` without `/proc`.
pub fn host() -> Option<Memory> {
    under(Path::new("/"))
}

fn under(root: &Path) -> Option<Memory> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let kibibytes = |key: &str| -> Option<u64> { field(&meminfo, key).map(|kb| kb * 1024) };
    let mut memory = Memory { total_bytes: kibibytes("MemTotal:")?, available_bytes: kibibytes("MemAvailable:")? };
    for line in fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default().lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let version = match controllers {
            "" => &V2,
            _ if controllers.split(',').any(|controller| controller == "memory") => &V1,
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        // Any group on the way up may hold the limit; inside a container the path may exist only from the root on.
        for group in group.ancestors() {
            version.limit(&root.join(version.mount).join(group), &mut memory);
        }
    }
    let limits = fs::read_to_string(root.join("proc/self/limits")).unwrap_or_default();
    let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    for (name, held) in [("Max address space", "VmSize:"), ("Max data size", "VmData:")] {
        let limit = limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        let held = field(&status, held).unwrap_or(0) * 1024;
        if let Some(limit) = limit {
            memory.narrow(limit, held);
        }
    }
    Some(memory)
}

impl Memory {
    fn narrow(&mut self, limit: u64, held: u64) {
        self.total_bytes = self.total_bytes.min(limit);
        self.available_bytes = self.available_bytes.min(limit.saturating_sub(held));
    }
}

struct Version {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    reclaimable: &'static str,
}

const V1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
const V2: Version =
    Version { mount: "sys/fs/cgroup", limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file" };

impl Version {
    fn limit(&self, group: &Path, memory: &mut Memory) {
        let number = |name| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
        // v2 writes "max" and v1 a huge number where there is no limit.
        let Some(limit) = number(self.limit) else { return };
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let held = number(self.usage).unwrap_or(0).saturating_sub(field(&stat, self.reclaimable).unwrap_or(0));
        memory.narrow(limit, held);
    }
}

/// The number after `key` at the start of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:  1000 kB\nMemFree: 100 kB\nMemAvailable:  800 kB\n";

    fn check(cgroup: &str, files: &[(&str, &str)], total_bytes: u64, available_bytes: u64) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", MEMINFO), ("proc/self/cgroup", cgroup)].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(under(root.path()), Some(Memory { total_bytes, available_bytes }), "{cgroup:?} {files:?}");
    }

    #[test]
    fn the_tightest_limit_counts() {
        let v2 = "0::/a/b\n";
        check(v2, &[], 1_024_000, 819_200);
        check(v2, &[("sys/fs/cgroup/a/b/memory.max", "max\n")], 1_024_000, 819_200);
        let held = ("sys/fs/cgroup/a/memory.current", "300000\n");
        let stat = ("sys/fs/cgroup/a/memory.stat", "anon 7\ninactive_file 100000\n");
        check(v2, &[("sys/fs/cgroup/a/memory.max", "500000\n"), held, stat], 500_000, 300_000);
        check(v2, &[("sys/fs/cgroup/memory.max", "500000\n")], 500_000, 500_000);
        let v1 = "5:cpu:/x\n4:memory:/x\n";
        check(v1, &[("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n")], 1_024_000, 819_200);
        check(v1, &[("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1000\n")], 1000, 1000);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax data size  unlimited  unlimited  bytes\n\
                      Max address space         700000               unlimited            bytes     \n";
        let limits = ("proc/self/limits", limits);
        check("", &[limits], 700_000, 700_000);
        check("", &[limits, ("proc/self/status", "Name: x\nVmSize:\t     600 kB\nVmData: 9 kB\n")], 700_000, 85_600);
    }

    #[test]
    fn this_machine_has_some() {
        if let Some(memory) = host() {
            assert!(0 < memory.available_bytes && memory.available_bytes <= memory.total_bytes, "{memory:?}");
        }
    }
}

//! `timeball tune` and `tuning/`: on a false root, and in a network namespace of its own. Nothing
//! of this machine is changed.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::namespace::Hosts;
use common::server::program;
use tempfile::TempDir;
use timeball::host::tuning::{README, SETTINGS, sysctl_file};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning");

/// A root folder with some settings, and an ethtool that keeps its own in a file.
struct Root {
    folder: TempDir,
}

impl Root {
    fn new() -> Self {
        let root = Self { folder: tempfile::tempdir().expect("a folder") };
        for (path, value) in [
            ("proc/sys/net/core/rmem_max", "212992"),
            ("proc/sys/net/core/wmem_max", "212992"),
            ("proc/sys/net/core/somaxconn", "128"),
            ("sys/class/net/eth0/gro_flush_timeout", "0"),
            ("sys/class/net/eth0/napi_defer_hard_irqs", "0"),
            ("sys/class/net/eth0/device/vendor", ""),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave"),
            ("usecs", "50"),
        ] {
            let path = root.path(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, value).expect("written");
        }
        let usecs = root.path("usecs");
        let script = format!(
            "#!/bin/sh\ncase $1 in\n\
             -c) printf 'Adaptive RX: off\\nrx-usecs:\\t%s\\n' \"$(cat {0})\" ;;\n\
             -C) [ \"$2 $3\" = 'eth0 rx-usecs' ] && echo \"$4\" >{0} ;;\n\
             -k) echo 'large-receive-offload: off [fixed]' ;;\n\
             *) echo 'netlink error: Operation not supported' >&2; exit 1 ;;\nesac\n",
            usecs.display()
        );
        let tool = root.path("usr/sbin/ethtool");
        fs::create_dir_all(tool.parent().expect("a folder")).expect("made");
        fs::write(&tool, script).expect("written");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("ours");
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn undo(&self) -> PathBuf {
        self.path("undo")
    }

    fn tune(&self, configuration: &str, more: &[&str]) -> Output {
        let file = self.path("timeball.toml");
        fs::write(&file, configuration).expect("written");
        program()
            .args(["tune", "--root"])
            .arg(self.folder.path())
            .arg("--undo")
            .arg(self.undo())
            .arg("--config")
            .arg(file)
            .args(more)
            .output()
            .expect("the program")
    }

    /// Every setting as it is now.
    fn values(&self) -> Vec<String> {
        [
            "proc/sys/net/core/rmem_max",
            "proc/sys/net/core/wmem_max",
            "proc/sys/net/core/somaxconn",
            "sys/class/net/eth0/gro_flush_timeout",
            "sys/class/net/eth0/napi_defer_hard_irqs",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "usecs",
        ]
        .map(|path| fs::read_to_string(self.path(path)).expect("there").trim().to_owned())
        .into()
    }
}

fn done(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    assert!(output.status.success(), "{text}{output:?}");
    text
}

const APPLIANCE: &str = "profile = \"appliance\"\n[ntp]\ncpus = \"0\"\n\
    [ke]\ncertificate = \"/etc/timeball/cert.pem\"\nkey = \"/etc/timeball/key.pem\"\n";

#[test]
fn what_is_set_is_said_kept_and_undone() {
    let root = Root::new();
    let before = root.values();
    let dry = done(&root.tune(APPLIANCE, &["--dry-run"]));
    assert!(dry.contains("would set  net.core.rmem_max from 212992 to 1048576: requests of a "));
    assert_eq!((root.values(), root.undo().exists()), (before.clone(), false));

    let text = done(&root.tune(APPLIANCE, &[]));
    for line in [
        "set        net.core.somaxconn from 128 to 4096: ",
        "set        rx-usecs of eth0 from 50 to 10: ",
        "set        /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor from powersave to ",
        "not here   lro of eth0 is not there\n",
        "as it is   adaptive-rx of eth0 is off\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let tuned = ["1048576", "1048576", "4096", "5000000", "1000000", "performance", "10"]
        .map(str::to_owned);
    assert_eq!(root.values(), tuned);

    // Once more: nothing, and what would be undone stays.
    let script = fs::read_to_string(root.undo()).expect("written");
    assert!(done(&root.tune(APPLIANCE, &[])).ends_with("nothing to change\n"));
    assert_eq!(fs::read_to_string(root.undo()).expect("kept"), script);

    // Later changes are undone first.
    let larger = APPLIANCE.replace("[ntp]", "[ntp]\nreceive_buffer_bytes = 4194304");
    done(&root.tune(&larger, &[]));
    assert_eq!(root.values()[0], "4194304");
    let mode = fs::metadata(root.undo()).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let undone = Command::new("sh").arg(root.undo()).output().expect("a shell");
    assert!(undone.status.success() && undone.stderr.is_empty(), "{undone:?}");
    assert_eq!(root.values(), before);
    assert!(!root.undo().exists());
}

#[test]
fn a_shared_host_keeps_what_is_its_own() {
    let root = Root::new();
    let before = root.values();
    let text = done(&root.tune("", &[]));
    assert!(!text.contains("scaling_governor") && !text.contains("rx-usecs"), "{text}");
    let after = root.values();
    assert_eq!(after[..2], ["1048576", "1048576"]);
    assert_eq!(after[2..], before[2..]);
}

#[test]
fn nothing_is_changed_that_could_not_be_undone() {
    let root = Root::new();
    let before = root.values();
    fs::create_dir(root.undo()).expect("made");
    let output = root.tune(APPLIANCE, &[]);
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("nothing was changed"), "{message}");
    assert_eq!(root.values(), before);
    assert_eq!(root.tune("[ntp", &[]).status.code(), Some(2));

    // What somebody else has put there would run as root.
    fs::remove_dir(root.undo()).expect("empty");
    fs::write(root.undo(), "#!/bin/sh\nreboot\n").expect("written");
    let output = root.tune(APPLIANCE, &[]);
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(message.contains("no undo script") && message.contains("--undo"), "{message}");
    assert_eq!(root.values(), before);
}

/// The second queue's interrupt is there when the queue is, and is set by the same run.
#[test]
fn one_run_sets_the_interrupts_of_the_queues_that_it_makes() {
    let root = Root::new();
    let device = root.path("sys/class/net/eth0/device/msi_irqs");
    let affinity = |interrupt: u32| root.path(&format!("proc/irq/{interrupt}/smp_affinity_list"));
    for (interrupt, list) in [(38, "0-1"), (39, "1")] {
        let path = affinity(interrupt);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, list).expect("written");
    }
    fs::create_dir_all(&device).expect("made");
    fs::write(device.join("38"), "").expect("written");
    let (queues, second) = (root.path("queues"), device.join("39"));
    fs::write(&queues, "1").expect("written");
    let (queues, second) = (queues.display(), second.display());
    let tool = root.path("usr/sbin/ethtool");
    let script = format!(
        "#!/bin/sh\ncase $1 in\n\
         -l) printf 'Combined:\\t8\\nCombined:\\t%s\\n' \"$(cat {queues})\" ;;\n\
         -L) echo \"$4\" >{queues}; [ \"$4\" = 1 ] && rm {second} || : >{second} ;;\n\
         -c) printf 'Adaptive RX: off\\nrx-usecs:\\t10\\n' ;;\n\
         -k) echo 'large-receive-offload: off [fixed]' ;;\nesac\n"
    );
    fs::write(&tool, script).expect("written");
    let values =
        || [38, 39].map(|interrupt| fs::read_to_string(affinity(interrupt)).expect("there"));

    let two = APPLIANCE.replace("[ntp]", "[ntp]\nworkers = 2");
    let dry = done(&root.tune(&two, &["--dry-run"]));
    assert!(dry.contains("would set  combined of eth0 from 1 to 2"), "{dry}");
    assert!(dry.contains("would set  smp_affinity_list of queues that this makes\n"), "{dry}");
    assert_eq!(values(), ["0-1", "1"]);

    let text = done(&root.tune(&two, &[]));
    let place = |line: &str| text.find(line).unwrap_or_else(|| panic!("{line}: {text}"));
    assert!(place("set        combined of eth0") < place("set        /proc/irq/38/"), "{text}");
    assert_eq!(values(), ["0", "0"]);
    assert!(done(&root.tune(&two, &[])).ends_with("nothing to change\n"));

    let undone = Command::new("sh").arg(root.undo()).output().expect("a shell");
    assert!(undone.status.success() && !root.undo().exists(), "{undone:?}");
    assert_eq!(values().map(|list| list.trim().to_owned()), ["0-1", "1"]);
    assert_eq!(fs::read_to_string(root.path("queues")).expect("there").trim(), "1");
}

#[test]
fn what_could_not_be_undone_waits() {
    let root = Root::new();
    let before = root.values();
    done(&root.tune(APPLIANCE, &[]));
    let governor = root.path("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    fs::remove_file(&governor).expect("there");
    fs::create_dir(&governor).expect("made");
    let undo = || Command::new("sh").arg(root.undo()).output().expect("a shell");
    let first = undo();
    assert!(!first.status.success() && root.undo().exists(), "{first:?}");
    fs::remove_dir(&governor).expect("empty");
    let second = undo();
    assert!(second.status.success() && !root.undo().exists(), "{second:?}");
    assert_eq!(root.values(), before);
}

#[test]
fn what_cannot_be_set_is_said() {
    let root = Root::new();
    let governor = root.path("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    // A tool that fails stands for a file that refuses: root may write everywhere.
    let tool = root.path("usr/sbin/ethtool");
    let script = fs::read_to_string(&tool).expect("there").replace("-C)", "-X)");
    fs::write(&tool, script).expect("written");
    let output = root.tune(APPLIANCE, &[]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = "failed     rx-usecs of eth0 stays 50: ethtool fails: netlink error";
    assert!(text.contains(line), "{text}");
    // The rest is set all the same.
    assert_eq!(fs::read_to_string(governor).expect("there"), "performance");
}

/// On interfaces and kernel settings that are the namespace's own.
#[test]
fn a_real_kernel_takes_it_and_takes_it_back() {
    let hosts = Hosts::new().expect("root, and iproute2");
    let folder = tempfile::tempdir().expect("a folder");
    let (file, undo) = (folder.path().join("timeball.toml"), folder.path().join("undo"));
    let configuration = "[ntp]\nbind_device = \"lan\"\nbusy_poll_microseconds = 50\n\
        receive_buffer_bytes = 4096\nsend_buffer_bytes = 4096\n\
        [ke]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";
    fs::write(&file, configuration).expect("written");
    let run = |command: &mut Command| done(&command.output().expect("ip netns exec"));
    let values = || {
        let files = ["gro_flush_timeout", "napi_defer_hard_irqs"]
            .map(|name| format!("/sys/class/net/lan/{name}"));
        run(hosts.server.command("cat").args(files).arg("/proc/sys/net/core/somaxconn"))
    };
    run(hosts.server.command("sysctl").args(["-w", "net.core.somaxconn=100"]));
    let before = values();
    assert_eq!(before, "0\n0\n100\n");
    let tune = || {
        let mut command = hosts.server.command(env!("CARGO_BIN_EXE_timeball"));
        command.arg("tune").arg("--config").arg(&file).arg("--undo").arg(&undo);
        run(&mut command)
    };
    let text = tune();
    assert!(text.contains("set        net.core.somaxconn from 100 to 4096"), "{text}");
    assert_eq!(values(), "5000000\n1000000\n4096\n");
    assert!(tune().ends_with("nothing to change\n"));
    run(hosts.server.command("sh").arg(&undo));
    assert_eq!(values(), before);
}

#[test]
fn the_scripts_are_the_programs_commands() {
    let timeball = env!("CARGO_BIN_EXE_timeball");
    let run = |script: &str, arguments: &[&str]| {
        let mut command = Command::new(format!("{FOLDER}/{script}"));
        command.env("TIMEBALL", timeball).args(arguments).output().expect("the script")
    };
    let root = Root::new();
    let root = root.folder.path().to_str().expect("text");
    let check = run("check", &["--root", root]);
    let text = String::from_utf8(check.stdout).expect("text");
    assert!(text.contains("; fix: sysctl -w net.core.rmem_max=1048576\n"), "{text}");
    assert!(!text.contains("certificate:"), "{text}");
    let apply = done(&run("apply", &["--dry-run", "--root", root]));
    assert!(apply.contains("would set  net.core.rmem_max"), "{apply}");
}

/// One source: what is in files was printed by the program.
#[test]
fn files_and_documents_say_what_the_program_does() {
    let file = fs::read_to_string(format!("{FOLDER}/sysctl.d/60-timeball.conf")).expect("there");
    assert_eq!(file, sysctl_file());
    let printed = program().args(["tune", "--print-sysctl"]).output().expect("the program");
    assert_eq!(done(&printed), file);
    let readme = fs::read_to_string(format!("{FOLDER}/README.md")).expect("there");
    for setting in SETTINGS {
        let row = format!("| `{}` | {} | {} |", setting.name, setting.when, setting.reason);
        assert!(readme.contains(&row), "tuning/README.md lacks: {row}");
    }
    let rows = readme.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, SETTINGS.len());
    let unit = Path::new(FOLDER).join("systemd/timeball-tuning.service");
    let unit = fs::read_to_string(unit).expect("there");
    assert!(unit.contains(&format!("Documentation=file:{README}\n")), "{unit}");
}

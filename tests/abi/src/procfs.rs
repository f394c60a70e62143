//! /proc.

use crate::sys::*;
use std::fs;
use std::os::fd::AsRawFd;

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn field(path: &str, name: &str) -> String {
    let text = text(path);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{path} has no {name}")).trim().to_owned()
}

fn stat_fields(pid: u32) -> Vec<String> {
    let text = text(&format!("/proc/{pid}/stat"));
    let (_, rest) = text.rsplit_once(") ").unwrap();
    rest.split_whitespace().map(str::to_owned).collect()
}

const PTHREAD: libc::pthread_mutex_t = libc::PTHREAD_MUTEX_INITIALIZER;

/// A mutex of the C library.
struct Mutex(std::cell::UnsafeCell<libc::pthread_mutex_t>);

unsafe impl Sync for Mutex {}

impl Mutex {
    fn lock(&self) {
        unsafe { libc::pthread_mutex_lock(self.0.get()) };
    }
}

cases! {
    fn settings_have_no_size_of_their_own() {
        let file = fs::OpenOptions::new().read(true).write(true).open("/proc/self/oom_score_adj").unwrap();
        for size in [0, 10] {
            ok!(libc::ftruncate(file.as_raw_fd(), size));
        }
        assert!(!text("/proc/self/oom_score_adj").is_empty());
    }

    fn who_has_logged_in_is_said_once() {
        // Without audit there is no such file; and who is logged in needs rights to say something else.
        if fs::read_to_string("/proc/self/loginuid").is_ok_and(|uid| uid == u32::MAX.to_string()) {
            expect_exit(child(|| {
                fs::write("/proc/self/loginuid", "7").unwrap();
                assert_eq!(text("/proc/self/loginuid"), "7");
                let session = text("/proc/self/sessionid");
                assert_ne!(session, u32::MAX.to_string());
                expect_exit(child(move || (text("/proc/self/sessionid") != session).into()), 0);
                ok!(libc::setuid(65534));
                assert!(fs::write("/proc/self/loginuid", "8").is_err());
                0
            }), 0);
        }
    }

    fn deadlocks_are_named() {
        // Linux has no such file.
        if !std::path::Path::new("/proc/deadlocks").exists() {
            return;
        }
        let pid = child(|| {
            let locks = std::sync::Arc::new([PTHREAD, PTHREAD].map(|lock| Mutex(std::cell::UnsafeCell::new(lock))));
            let both = std::sync::Arc::new(std::sync::Barrier::new(2));
            let other = (locks.clone(), both.clone());
            std::thread::spawn(move || {
                other.0[0].lock();
                other.1.wait();
                other.0[1].lock();
            });
            locks[1].lock();
            both.wait();
            locks[0].lock();
            0
        });
        let report = || std::fs::read_to_string("/proc/deadlocks").unwrap();
        until(|| report().lines().any(|line| line.starts_with("deadlock:") && line.contains(&format!(" {pid}"))));
        assert!(std::fs::read_to_string("/proc/deadlocks.dot").unwrap().contains("color=red"));
        ok!(libc::kill(pid, libc::SIGKILL));
        expect_signal(pid, libc::SIGKILL);
        assert!(!report().contains(&format!("process {pid}\n")));
    }

    fn deadlocks_over_pipes_and_semaphores_are_named() {
        if !std::path::Path::new("/proc/deadlocks").exists() {
            return;
        }
        let report = || std::fs::read_to_string("/proc/deadlocks").unwrap();
        let is_stuck = |pid: i32| {
            report().lines().any(|line| line.starts_with("deadlock:") && line.contains(&format!(" {pid} ")))
        };
        // Each waits for what the other would write.
        let (pipe_a, pipe_b) = (pipe(), pipe());
        let one = child(|| {
            let mut byte = [0u8];
            unsafe { libc::close(pipe_a.1.as_raw_fd()) };
            unsafe { libc::close(pipe_b.0.as_raw_fd()) };
            i32::from(unsafe { libc::read(pipe_a.0.as_raw_fd(), byte.as_mut_ptr().cast(), 1) } == 1)
        });
        let other = child(|| {
            let mut byte = [0u8];
            unsafe { libc::close(pipe_b.1.as_raw_fd()) };
            unsafe { libc::close(pipe_a.0.as_raw_fd()) };
            i32::from(unsafe { libc::read(pipe_b.0.as_raw_fd(), byte.as_mut_ptr().cast(), 1) } == 1)
        });
        drop((pipe_a, pipe_b));
        until(|| is_stuck(one) && is_stuck(other));
        assert!(report().contains("waits for data in pipe"));
        ok!(libc::kill(one, libc::SIGKILL));
        expect_signal(one, libc::SIGKILL);
        // Nobody is left to write to the other.
        expect_exit(other, 0);
        // Two processes take two semaphores, each in its own order.
        let set = ok!(libc::semget(libc::IPC_PRIVATE, 2, 0o600));
        let ready = shared_page();
        for number in 0..2 {
            ok!(libc::semctl(set, number, libc::SETVAL, 1));
        }
        let taker = |first: u16| {
            child(|| {
                let take = |number: u16| {
                    let mut operation = libc::sembuf { sem_num: number, sem_op: -1, sem_flg: libc::SEM_UNDO as i16 };
                    ok!(libc::semop(set, &mut operation, 1));
                };
                take(first);
                let ready = unsafe { std::sync::atomic::AtomicU32::from_ptr(ready) };
                ready.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                until(|| ready.load(std::sync::atomic::Ordering::SeqCst) == 2);
                take(1 - first);
                0
            })
        };
        let pids = [taker(0), taker(1)];
        until(|| pids.iter().all(|&pid| is_stuck(pid)));
        assert!(report().contains(&format!("waits for semaphore 0 of set {set}, likely held by")));
        // What the first gives back at its end is enough for the second.
        ok!(libc::kill(pids[0], libc::SIGKILL));
        expect_signal(pids[0], libc::SIGKILL);
        expect_exit(pids[1], 0);
        ok!(libc::semctl(set, 0, libc::IPC_RMID));
    }

    fn io_counts_calls_and_bytes() {
        let counts = || {
            let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
            text.lines().map(|line| line.split_once(": ").unwrap().1.parse().unwrap()).collect::<Vec<u64>>()
        };
        let (reader, writer) = pipe();
        let before = counts();
        let mut data = [7u8; 1000];
        for _ in 0..3 {
            assert_eq!(unsafe { libc::write(writer.as_raw_fd(), data.as_ptr().cast(), data.len()) }, 1000);
            assert_eq!(unsafe { libc::read(reader.as_raw_fd(), data.as_mut_ptr().cast(), data.len()) }, 1000);
        }
        // A call that fails counts once it has got to the file.
        ok!(libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK));
        err!(libc::read(reader.as_raw_fd(), data.as_mut_ptr().cast(), 1), libc::EAGAIN);
        err!(libc::read(-1, data.as_mut_ptr().cast(), 1), libc::EBADF);
        let after = counts();
        assert_eq!((after.len(), after[1] - before[1], after[3] - before[3]), (7, 3000, 3));
        // Reading these files counts as well.
        assert!(after[0] - before[0] >= 3000 && after[2] - before[2] >= 4, "{before:?} {after:?}");
    }

    fn fdinfo_can_be_read_of_itself() {
        let slot = open("/dev/null", libc::O_RDONLY);
        let info = open(&format!("/proc/self/fdinfo/{}", slot.as_raw_fd()), libc::O_RDONLY);
        ok!(libc::dup2(info.as_raw_fd(), slot.as_raw_fd()));
        assert!(read(&slot, 1000).starts_with(b"pos:\t"));
    }

    fn self_is_a_link_to_the_pid() {
        assert_eq!(fs::read_link("/proc/self").unwrap().to_str().unwrap(), std::process::id().to_string());
        let thread = fs::read_link("/proc/thread-self").unwrap();
        assert!(thread.ends_with(format!("{0}/task/{0}", std::process::id())));
    }

    fn stat_has_its_fields() {
        let fields = stat_fields(std::process::id());
        assert!(fields.len() >= 50, "{} fields", fields.len());
        assert_eq!(fields[0], "R");
        assert_eq!(fields[1], unsafe { libc::getppid() }.to_string());
        assert_eq!(fields[2], unsafe { libc::getpgrp() }.to_string());
        assert_eq!(fields[3], unsafe { libc::getsid(0) }.to_string());
        assert_eq!(fields[17], "1", "threads");
        assert!(fields[19].parse::<u64>().unwrap() > 0, "start time");
        assert!(fields[20].parse::<u64>().unwrap() > 100_000, "virtual size");
    }

    fn status_has_its_fields() {
        let path = "/proc/self/status";
        assert_eq!(field(path, "Pid"), std::process::id().to_string());
        assert_eq!(field(path, "PPid"), unsafe { libc::getppid() }.to_string());
        assert_eq!(field(path, "Uid").split_whitespace().count(), 4);
        assert_eq!(field(path, "Threads"), "1");
        assert!(field(path, "State").starts_with('R'));
        assert!(field(path, "VmRSS").ends_with(" kB"));
        assert_eq!(field(path, "Umask"), "0022");
    }

    fn status_shows_signals() {
        block(&[libc::SIGUSR1]);
        act(libc::SIGUSR2, libc::SIG_IGN, 0);
        ok!(libc::raise(libc::SIGUSR1));
        let bits = |name: &str| u64::from_str_radix(&field("/proc/self/status", name), 16).unwrap();
        let bit = |signal: i32| 1u64 << (signal - 1);
        assert_ne!(bits("SigBlk") & bit(libc::SIGUSR1), 0);
        assert_ne!(bits("SigIgn") & bit(libc::SIGUSR2), 0);
        assert_ne!((bits("SigPnd") | bits("ShdPnd")) & bit(libc::SIGUSR1), 0);
    }

    fn maps_shows_mappings() {
        let base = map(3 * 4096, libc::PROT_READ) as usize;
        ok!(libc::mprotect((base + 4096) as *mut _, 4096, libc::PROT_NONE));
        let maps = text("/proc/self/maps");
        let line = maps.lines().find(|line| line.starts_with(&format!("{:x}-{:x} ", base + 4096, base + 8192)));
        assert!(line.is_some_and(|line| line.contains(" ---p ")), "{maps}");
        for name in ["[stack]", "[heap]"] { assert!(maps.contains(name), "no {name}"); }
        let program = fs::read_link("/proc/self/exe").unwrap();
        assert!(maps.lines().any(|line| line.contains(" r-xp ") && line.ends_with(program.to_str().unwrap())));
    }

    fn memory_in_smaps_and_statm() {
        let base = map(64 * 4096, 3);
        let resident = || text("/proc/self/statm").split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        let before = resident();
        for page in 0..64 { unsafe { base.add(page * 4096).write_volatile(1) }; }
        let grown = resident() - before;
        assert!((40..=600).contains(&grown), "{grown} pages");
        assert!(text("/proc/self/smaps").contains("Rss:"));
    }

    fn descriptors_are_links() {
        file("f", b"abc");
        let fd = open("f", libc::O_RDWR | libc::O_APPEND);
        read(&fd, 2);
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(link, std::env::current_dir().unwrap().join("f"));
        let info = text(&format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
        assert!(info.starts_with("pos:\t2\n"), "{info}");
        let (reader, _writer) = pipe();
        let link = fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd())).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("pipe:[{}]", fstat(&reader).st_ino));
    }

    fn cmdline_environ_and_cwd() {
        let arguments: Vec<String> = std::env::args().collect();
        assert_eq!(text("/proc/self/cmdline"), arguments.join("\0") + "\0");
        assert_eq!(fs::read_link("/proc/self/cwd").unwrap(), std::env::current_dir().unwrap());
        assert_eq!(fs::read_link("/proc/self/root").unwrap().to_str(), Some("/"));
        fs::read("/proc/self/environ").unwrap();
    }

    fn processes_come_and_go() {
        let pid = child(|| loop { nap(1000) });
        let listed = || fs::read_dir("/proc").unwrap().any(|entry| entry.unwrap().file_name().to_str() == Some(&pid.to_string()));
        assert!(listed());
        ok!(libc::kill(pid, libc::SIGKILL));
        until(|| state(pid) == 'Z');
        assert!(listed());
        assert_eq!(text(&format!("/proc/{pid}/cmdline")), "");
        wait(pid);
        assert!(!listed());
        assert_eq!(fs::read("/proc/999999/stat").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    fn an_open_entry_of_a_dead_process_is_esrch() {
        let pid = child(|| loop { nap(1000) });
        let stat = open(&format!("/proc/{pid}/stat"), libc::O_RDONLY);
        ok!(libc::kill(pid, libc::SIGKILL));
        wait(pid);
        err!(libc::read(stat.as_raw_fd(), [0u8; 9].as_mut_ptr().cast(), 9), libc::ESRCH);
    }

    fn meminfo_adds_up() {
        let kib = |name: &str| field("/proc/meminfo", name).trim_end_matches(" kB").parse::<u64>().unwrap();
        let (total, free, available) = (kib("MemTotal"), kib("MemFree"), kib("MemAvailable"));
        assert!(total > 16 << 10 && free < total && available <= total);
        let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
        ok!(libc::sysinfo(&mut info));
        let told = (info.totalram * u64::from(info.mem_unit)) >> 10;
        assert!(told.abs_diff(total) < 1024, "{told} and {total}");
        assert!(info.procs > 0);
    }

    fn deferred_work_is_counted() {
        let received = || -> u64 {
            let table = text("/proc/softirqs");
            let row = table.lines().find_map(|line| line.trim().strip_prefix("NET_RX:")).unwrap();
            row.split_whitespace().map(|n| n.parse::<u64>().unwrap()).sum()
        };
        let before = received();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            socket.recv(&mut [0; 9]).unwrap();
        }
        assert!(received() > before);
        // The same as one line of /proc/stat: the sum, then each kind.
        let stat = text("/proc/stat");
        let row = stat.lines().find_map(|line| line.strip_prefix("softirq ")).unwrap();
        assert_eq!(row.split(' ').count(), 11);
        assert!(row.split(' ').nth(4).unwrap().parse::<u64>().unwrap() > before);
    }

    fn uptime_and_loadavg() {
        let uptime: Vec<f64> = text("/proc/uptime").split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert!(uptime.len() == 2 && uptime[0] > 0.0);
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        ok!(libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now));
        assert!((now.tv_sec as f64 - uptime[0]).abs() < 3.0);
        assert_eq!(text("/proc/loadavg").split_whitespace().count(), 5);
    }

    fn stat_counts_work() {
        let stat = text("/proc/stat");
        let cpu: Vec<u64> = stat.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
        assert!(cpu.len() >= 7 && cpu.iter().sum::<u64>() > 0);
        for name in ["ctxt ", "btime ", "processes ", "procs_running "] { assert!(stat.contains(name), "no {name}"); }
    }

    fn mounts_are_listed() {
        assert_eq!(fs::read_link("/proc/mounts").unwrap().to_str(), Some("self/mounts"));
        let mounts = text("/proc/mounts");
        let root = mounts.lines().find(|line| line.split_whitespace().nth(1) == Some("/")).expect("a root");
        assert_eq!(root.split_whitespace().count(), 6);
        assert!(mounts.lines().any(|line| line.contains(" /proc proc ")));
        assert!(text("/proc/self/mountinfo").contains(" - proc proc "));
        assert!(text("/proc/filesystems").contains("tmpfs"));
    }

    fn small_reads_go_on_where_they_stopped() {
        let whole = text("/proc/cpuinfo");
        let fd = open("/proc/cpuinfo", libc::O_RDONLY);
        let mut pieces = Vec::new();
        loop {
            let got = read(&fd, 7);
            if got.is_empty() { break; }
            pieces.extend(got);
            if pieces.len() > 200 { break; }
        }
        assert!(whole.as_bytes().starts_with(&pieces[..pieces.len().min(50)]));
    }

    fn nobody_may_not_look_into_root() {
        let root = std::process::id();
        in_child(|| {
            become_nobody();
            assert!(fs::read(format!("/proc/{root}/stat")).is_ok());
            for name in ["environ", "fd", "cwd", "mem"] {
                let path = c(&format!("/proc/{root}/{name}"));
                let result = match name {
                    "fd" => fs::read_dir(path.to_str().unwrap()).err(),
                    "cwd" => fs::read_link(path.to_str().unwrap()).err(),
                    _ => fs::read(path.to_str().unwrap()).err(),
                };
                assert_eq!(result.and_then(|error| error.raw_os_error()), Some(libc::EACCES), "{name}");
            }
        });
    }

    fn random_numbers_in_sysctl() {
        let id = text("/proc/sys/kernel/random/boot_id");
        assert_eq!((id.len(), id.as_str()), (37, text("/proc/sys/kernel/random/boot_id").as_str()));
        assert_ne!(text("/proc/sys/kernel/random/uuid"), text("/proc/sys/kernel/random/uuid"));
        assert!(text("/proc/sys/kernel/pid_max").trim().parse::<u32>().unwrap() > 1000);
        assert_eq!(text("/proc/sys/kernel/ostype"), "Linux\n");
    }

    fn transfers_are_counted() {
        let figures = || -> Vec<u64> {
            let text = fs::read_to_string("/proc/self/io").unwrap();
            let names = ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"];
            let figure = |(line, name): (&str, &str)| {
                let (found, value) = line.split_once(": ").unwrap();
                assert_eq!(found, name);
                value.parse().unwrap()
            };
            text.lines().zip(names).map(figure).collect()
        };
        let (reader, writer) = pipe();
        let before = figures();
        write(&writer, &[0; 1000]);
        assert_eq!(read(&reader, 600).len(), 600);
        assert_eq!(read(&reader, 600).len(), 400);
        set_nonblocking(&reader);
        let mut byte = [0u8];
        assert_eq!(unsafe { libc::read(reader.as_raw_fd(), byte.as_mut_ptr().cast(), 1) }, -1);
        let after = figures();
        let grown: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        assert_eq!((grown[1], grown[3]), (1000, 1));
        // Reading the figures counts too: its text, and that there is no more.
        assert!(grown[0] >= 1000 + 80 && grown[0] < 1400 && grown[2] >= 4 && grown[2] <= 8, "{grown:?}");
        // Those of a child are its own.
        let status = wait(child(|| i32::from(figures()[1] != 0)));
        assert_eq!(status, 0);
    }

    fn each_mount_shows_what_its_options_say() {
        let mount = |place: &str, options: &str| -> i32 {
            fs::create_dir_all(place).unwrap();
            let (kind, place, options) = (c("proc"), c(place), c(options));
            unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) }
        };
        in_child(|| {
            ok!(libc::unshare(libc::CLONE_NEWNS));
            let (none, slash) = (std::ptr::null(), c("/"));
            ok!(libc::mount(none, slash.as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()));
            assert_eq!(mount("small", "subset=pid"), 0);
            assert_eq!(mount("hidden", "hidepid=invisible"), 0);
            assert_eq!(mount("closed", "hidepid=1,gid=77"), 0);
            assert_eq!(mount("wrong", "hidepid=9"), -1);
            assert_eq!(errno(), libc::EINVAL);
            let device = |path: &str| stat(path).st_dev;
            assert!(device("small") != device("hidden") && device("small") != device("/proc"));
            assert!(!std::path::Path::new("small/meminfo").exists() && std::path::Path::new("small/self/stat").exists());
            let mounts = text("/proc/self/mounts");
            assert!(mounts.lines().any(|line| line.contains("/hidden proc ") && line.contains(",hidepid=invisible")));
            let other = std::os::unix::process::parent_id();
            become_nobody();
            let error = |path: String| fs::metadata(path).err().and_then(|error| error.raw_os_error());
            assert_eq!(error(format!("hidden/{other}")), Some(libc::ENOENT));
            assert_eq!(error(format!("closed/{other}")), None);
            assert_eq!(error(format!("closed/{other}/stat")), Some(libc::EPERM));
            assert_eq!(error(format!("hidden/{}/stat", std::process::id())), None);
            let listed = |name: &str| fs::read_dir("hidden").unwrap().any(|entry| entry.unwrap().file_name() == name);
            assert!(listed(&std::process::id().to_string()) && !listed(&other.to_string()));
        });
    }

    fn a_file_without_a_name_shows_where_it_would_have_had_one() {
        let fd = open(".", libc::O_TMPFILE | libc::O_RDWR);
        let place = std::env::current_dir().unwrap();
        let name = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(name.to_str().unwrap(), format!("{}/#{} (deleted)", place.display(), fstat(&fd).st_ino));
    }
}

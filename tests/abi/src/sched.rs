//! Scheduling: nice, policies, affinity, rseq.

use crate::sys::*;
use std::mem::{size_of, zeroed};

fn affinity() -> libc::cpu_set_t {
    let mut set = unsafe { zeroed() };
    ok!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set));
    set
}

fn cpus(set: &libc::cpu_set_t) -> Vec<usize> {
    (0..1024).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, set) }).collect()
}

fn policy(policy: i32, priority: i32) -> i32 {
    unsafe { libc::sched_setscheduler(0, policy, &libc::sched_param { sched_priority: priority }) }
}

fn all_cpus() -> libc::cpu_set_t {
    let mut all: libc::cpu_set_t = unsafe { zeroed() };
    (0..1024).for_each(|cpu| unsafe { libc::CPU_SET(cpu, &mut all) });
    all
}

/// Puts `first` into xmm15, moves to the processors of `there`, puts `second` into it, moves to those of `here`, and says what it holds.
fn carry_vector(here: &libc::cpu_set_t, there: &libc::cpu_set_t, first: u64, second: u64) -> u64 {
    let found: u64;
    unsafe {
        std::arch::asm!(
            "movq xmm15, r12",
            "mov rdx, r8", "mov eax, {call}", "syscall",
            "movq xmm15, r13",
            "mov rdx, r9", "mov eax, {call}", "syscall",
            "movq r13, xmm15",
            call = const libc::SYS_sched_setaffinity,
            in("rdi") 0, in("rsi") size_of::<libc::cpu_set_t>(), in("r8") there, in("r9") here,
            in("r12") first, inout("r13") second => found,
            out("rax") _, out("rcx") _, out("rdx") _, out("r11") _, out("xmm15") _,
        );
    }
    found
}

cases! {
    fn affinity_binds_to_one_cpu() {
        for cpu in cpus(&affinity()) {
            let mut set: libc::cpu_set_t = unsafe { zeroed() };
            unsafe { libc::CPU_SET(cpu, &mut set) };
            ok!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set));
            assert_eq!(cpus(&affinity()), [cpu]);
            for _ in 0..10 { assert_eq!(ok!(libc::sched_getcpu()) as usize, cpu); nap(1); }
            in_child(|| assert_eq!(cpus(&affinity()), [cpu]));
            ok!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &all_cpus()));
        }
    }

    fn vector_registers_move_with_their_thread() {
        let on = |cpu: usize| unsafe { let mut set: libc::cpu_set_t = zeroed(); libc::CPU_SET(cpu, &mut set); set };
        for cpu in cpus(&affinity()) {
            let (here, there) = (on(cpus(&affinity())[0]), on(cpu));
            ok!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &here));
            for round in 0..20 {
                // What was left behind here must not come back.
                assert_eq!(carry_vector(&here, &there, round, round + 1000), round + 1000);
            }
            ok!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &all_cpus()));
        }
    }

    fn a_real_time_hog_leaves_a_share_to_others() {
        let on_first = || {
            let mut set: libc::cpu_set_t = unsafe { zeroed() };
            unsafe { libc::CPU_SET(cpus(&affinity())[0], &mut set) };
            ok!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set));
        };
        let hog = child(|| {
            on_first();
            // Where that is not allowed the case shows nothing.
            policy(libc::SCHED_FIFO, 1);
            loop { std::hint::spin_loop(); }
        });
        let other = child(|| { on_first(); 0 });
        expect_exit(other, 0);
        ok!(libc::kill(hog, libc::SIGKILL));
        expect_signal(hog, libc::SIGKILL);
    }

    fn affinity_checks_its_arguments() {
        let none: libc::cpu_set_t = unsafe { zeroed() };
        err!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &none), libc::EINVAL);
        err!(libc::sched_setaffinity(999_999, size_of::<libc::cpu_set_t>(), &affinity()), libc::ESRCH);
        err!(libc::syscall(libc::SYS_sched_getaffinity, 0, 1, &none), libc::EINVAL);
    }

    fn the_number_of_cpus_is_told_alike() {
        let online = ok!(libc::sysconf(libc::_SC_NPROCESSORS_ONLN)) as usize;
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        assert_eq!(info.lines().filter(|line| line.starts_with("processor")).count(), online);
        let counted = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
        assert_eq!(counted, online);
    }

    fn nice_goes_up_freely_and_down_for_root() {
        in_child(|| {
            ok!(libc::setpriority(libc::PRIO_PROCESS, 0, 5));
            assert_eq!(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }, 5);
            ok!(libc::setpriority(libc::PRIO_PROCESS, 0, -5));
            ok!(libc::setpriority(libc::PRIO_PROCESS, 0, 100));
            assert_eq!(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }, 19);
            ok!(libc::setpriority(libc::PRIO_PROCESS, 0, 0));
            become_nobody();
            ok!(libc::setpriority(libc::PRIO_PROCESS, 0, 5));
            err!(libc::setpriority(libc::PRIO_PROCESS, 0, 0), libc::EACCES);
            err!(libc::setpriority(libc::PRIO_PROCESS, 999_999, 0), libc::ESRCH);
            err!(libc::setpriority(9, 0, 0), libc::EINVAL);
        });
    }

    fn nice_is_inherited() {
        in_child(|| {
            ok!(libc::setpriority(libc::PRIO_PROCESS, 0, 7));
            in_child(|| assert_eq!(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }, 7));
        });
    }

    fn policies_are_set_and_told() {
        assert_eq!(ok!(libc::sched_getscheduler(0)), libc::SCHED_OTHER);
        in_child(|| {
            for kind in [libc::SCHED_BATCH, libc::SCHED_IDLE, libc::SCHED_OTHER] {
                ok!(policy(kind, 0));
                assert_eq!(ok!(libc::sched_getscheduler(0)), kind);
            }
            err!(policy(libc::SCHED_OTHER, 5), libc::EINVAL);
            err!(policy(libc::SCHED_FIFO, 0), libc::EINVAL);
            err!(policy(77, 0), libc::EINVAL);
            err!(libc::sched_getscheduler(999_999), libc::ESRCH);
        });
        assert_eq!((ok!(libc::sched_get_priority_min(libc::SCHED_FIFO)), ok!(libc::sched_get_priority_max(libc::SCHED_RR))), (1, 99));
    }

    fn real_time_is_roots() {
        in_child(|| {
            become_nobody();
            err!(policy(libc::SCHED_FIFO, 1), libc::EPERM);
        });
    }

    fn yielding_lets_others_run() {
        ok!(libc::sched_yield());
        let page = shared_page();
        let set = affinity();
        let mut one: libc::cpu_set_t = unsafe { zeroed() };
        unsafe { libc::CPU_SET(cpus(&set)[0], &mut one) };
        ok!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one));
        let pid = child(|| { unsafe { page.write_volatile(1) }; 0 });
        while unsafe { page.read_volatile() } == 0 { ok!(libc::sched_yield()); }
        expect_exit(pid, 0);
    }

    fn busy_processes_share_one_cpu() {
        let mut one: libc::cpu_set_t = unsafe { zeroed() };
        unsafe { libc::CPU_SET(cpus(&affinity())[0], &mut one) };
        ok!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one));
        let counts = map_with(4096, 3, libc::MAP_SHARED).cast::<u64>();
        let pids: Vec<i32> = (0..3).map(|index| child(|| loop {
            let place = counts.wrapping_add(index);
            unsafe { place.write_volatile(place.read_volatile() + 1) }
        })).collect();
        nap(600);
        pids.iter().for_each(|pid| { ok!(libc::kill(*pid, libc::SIGKILL)); });
        pids.into_iter().for_each(|pid| { wait(pid); });
        let counts: Vec<u64> = (0..3).map(|index| unsafe { counts.add(index).read_volatile() }).collect();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(least * 4 > *most, "unfair: {counts:?}");
    }

    fn getcpu_tells_a_cpu() {
        let (mut cpu, mut node) = (9999u32, 9999u32);
        ok!(libc::syscall(libc::SYS_getcpu, &mut cpu, &mut node, 0));
        assert!(cpus(&affinity()).contains(&(cpu as usize)));
    }

    fn rseq_follows_the_cpu() {
        #[repr(C, align(32))]
        struct Rseq { cpu_start: u32, cpu: u32, section: u64, flags: u32, pad: [u32; 3] }
        // glibc has registered its own for this thread; a raw thread has none.
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let _ = flags;
        let area = Box::leak(Box::new(Rseq { cpu_start: 0, cpu: u32::MAX, section: 0, flags: 0, pad: [0; 3] }));
        let result = unsafe { libc::syscall(libc::SYS_rseq, area as *mut Rseq, 32, 0, 0x53053053) };
        if result == 0 {
            ok!(libc::sched_yield());
            let cpu = unsafe { (&raw const area.cpu).read_volatile() };
            assert!(cpus(&affinity()).contains(&(cpu as usize)));
            err!(libc::syscall(libc::SYS_rseq, area as *mut Rseq, 32, 0, 0x53053053), libc::EBUSY);
            ok!(libc::syscall(libc::SYS_rseq, area as *mut Rseq, 32, 1, 0x53053053));
        } else {
            // Registered already: a second area is refused.
            assert_eq!(errno(), libc::EINVAL);
        }
    }
}

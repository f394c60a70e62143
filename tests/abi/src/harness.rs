//! Runs cases, several at a time, each in a forked child with a folder of its own.

use crate::case::Case;
use crate::sys;
use libc::pid_t;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

const TIME_LIMIT: Duration = Duration::from_secs(10);
/// What a case may say about its failure.
const LONGEST_MESSAGE: u64 = 2000;

struct Options {
    list: bool,
    jobs: usize,
    scale: u32,
    filter: Option<String>,
}

struct Running<'a> {
    case: &'a Case,
    pid: pid_t,
    started: Instant,
    message: std::fs::File,
    folder: String,
    timed_out: bool,
}

/// Runs what the arguments select.
pub(crate) fn run(themes: &[&[Case]], arguments: &[String]) -> ExitCode {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("abi-tests: {error}");
            return ExitCode::from(2);
        }
    };
    let selected: Vec<&Case> = themes
        .iter()
        .flat_map(|theme| theme.iter())
        .filter(|case| options.filter.as_ref().is_none_or(|filter| full_name(case).contains(filter)))
        .collect();
    if options.list {
        selected.iter().for_each(|case| println!("{}", full_name(case)));
        return ExitCode::SUCCESS;
    }
    let failed = run_all(&selected, &options);
    println!("{} passed, {failed} failed", selected.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { list: false, jobs: cpus * 2, scale: 1, filter: None };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut number = || -> Result<u32, String> {
            words.next().and_then(|n| n.parse().ok()).ok_or(format!("{word} needs a number"))
        };
        match word.as_str() {
            "--list" => options.list = true,
            "--jobs" => options.jobs = number()?.max(1) as usize,
            "--scale" => options.scale = number()?,
            option if option.starts_with('-') => return Err(format!("no option {option}")),
            filter => options.filter = Some(filter.to_owned()),
        }
    }
    Ok(options)
}

fn full_name(case: &Case) -> String {
    let theme = case.theme.rsplit("::").next().unwrap_or(case.theme);
    format!("{theme}::{}", case.name)
}

fn run_all(cases: &[&Case], options: &Options) -> usize {
    let base = env::temp_dir().join(format!("abi-tests-{}", std::process::id()));
    if let Err(error) = fs::create_dir_all(&base) {
        eprintln!("abi-tests: {}: {error}", base.display());
        return cases.len();
    }
    sys::set_mode(&base, 0o777);
    sys::adopt_orphans();
    let limit = TIME_LIMIT * options.scale;
    let mut waiting = cases.iter();
    let mut running: Vec<Running> = Vec::new();
    let mut failed = 0;
    loop {
        while running.len() < options.jobs {
            let Some(case) = waiting.next() else {
                break;
            };
            running.push(start(case, &format!("{}/{}", base.display(), case.name)));
        }
        if running.is_empty() {
            break;
        }
        if let Some((pid, status)) = sys::reap_any() {
            if let Some(index) = running.iter().position(|each| each.pid == pid) {
                failed += usize::from(!finish(running.swap_remove(index), status));
            }
            continue;
        }
        for each in running.iter_mut().filter(|each| !each.timed_out) {
            if each.started.elapsed() > limit {
                each.timed_out = true;
                sys::kill_session(each.pid);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // What a failed case left behind holds our output open, for whoever reads it to its end.
    sys::kill_children();
    let _ = fs::remove_dir_all(&base);
    failed
}

fn start<'a>(case: &'a Case, folder: &str) -> Running<'a> {
    let (reader, writer) = sys::pipe();
    // What is buffered must not be written twice.
    let _ = std::io::stdout().flush();
    let pid = sys::fork();
    if pid == 0 {
        drop(reader);
        run_case(case, folder, writer);
    }
    Running {
        case,
        pid,
        started: Instant::now(),
        message: std::fs::File::from(reader),
        folder: folder.to_owned(),
        timed_out: false,
    }
}

/// In the child: never returns.
fn run_case(case: &Case, folder: &str, messages: OwnedFd) -> ! {
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string().replace('\n', " ");
        let text = text.trim_start_matches("panicked at ");
        // The parent may have given up on us.
        let _ = write_message(&messages, text);
    }));
    ok!(libc::setsid());
    fs::create_dir_all(folder).expect("a folder for the case");
    sys::set_mode(std::path::Path::new(folder), 0o777);
    env::set_current_dir(folder).expect("enter the case's folder");
    ok!(libc::umask(0o022) as i32);
    (case.run)();
    unsafe { libc::_exit(0) }
}

fn write_message(to: &OwnedFd, text: &str) -> isize {
    unsafe { libc::write(to.as_raw_fd(), text.as_ptr().cast(), text.len()) }
}

/// Reports a case that ended. True if it passed.
fn finish(mut ended: Running<'_>, status: i32) -> bool {
    // Whatever the case left behind must not disturb the next ones.
    sys::kill_session(ended.pid);
    let mut message = String::new();
    sys::set_nonblocking(&ended.message);
    let _ = (&mut ended.message).take(LONGEST_MESSAGE).read_to_string(&mut message);
    let _ = fs::remove_dir_all(&ended.folder);
    let name = full_name(ended.case);
    if status == 0 {
        println!("ok {name}");
        return true;
    }
    let why = if ended.timed_out {
        format!("took more than {} s", ended.started.elapsed().as_secs())
    } else if !message.is_empty() {
        message
    } else if libc::WIFSIGNALED(status) {
        format!("killed by signal {}", libc::WTERMSIG(status))
    } else {
        format!("status {}", libc::WEXITSTATUS(status))
    };
    println!("not ok {name}: {why}");
    false
}

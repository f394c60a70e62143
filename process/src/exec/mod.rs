//! execve(2): everything is prepared beside the old program, then swapped in one step that cannot fail.

pub mod elf;
mod load;
pub mod script;
pub mod stack;
pub mod strings;
mod vdso;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::{Cred, Errno, Result};
use fs::{FsContext, OpenFile, Path};
use hal::regs::UserRegs;
use hal::user::USER_END;
use mm::{AddressSpace, MapRequest, MappingName, Prot};

use crate::credentials::exec::on_exec;
use crate::signal::SIGCHLD;
use crate::task::AltStack;
use crate::{Image, SyscallWork, Task, exit};
use elf::page_up;
use load::{Loaded, Program, read_exact};
use stack::{Contents, Stack, at};
pub use strings::{Room, Strings};

/// Scripts may name scripts as interpreters this often.
const MAX_SCRIPTS: usize = 5;
/// Where programs that can be anywhere go before randomisation: two thirds up.
const RELOCATED_BASE: usize = (USER_END / 3 * 2) & !0xfff;
/// Room on the stack besides the strings.
const STACK_ROOM: usize = 128 << 10;
/// personality(2)'s ADDR_NO_RANDOMIZE.
const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;

/// What to run.
pub struct Request {
    /// The directory that `path` is relative to, or the file itself where `path` is empty.
    pub base: Option<Path>,
    /// The path.
    pub path: Vec<u8>,
    /// Follow a symbolic link at the path's end.
    pub follow: bool,
    /// What scripts and AT_EXECFN see as the path.
    pub name: Vec<u8>,
    /// Arguments.
    pub args: Strings,
    /// Environment.
    pub env: Strings,
}

/// A program that is ready to take over.
struct Prepared {
    space: Arc<AddressSpace>,
    file: Arc<OpenFile>,
    cred: Arc<Cred>,
    secure: bool,
    image: Image,
    regs: UserRegs,
    comm: Vec<u8>,
}

/// Replaces the calling thread's program; on success `regs` are those of the new one. `ENOENT`, `EACCES`, `ENOEXEC`, `E2BIG`,
/// `ELOOP` (scripts), `ENOMEM`, `ETXTBSY`, ...
pub fn exec(task: &Task, regs: &mut UserRegs, request: Request) -> Result<()> {
    let prepared = prepare(task, request)?;
    // The rest of the world may share the descriptors; closing is for this program alone.
    let files = task.files();
    let shared = Arc::strong_count(&files) > 2;
    let own = if shared { Some(files.fork()?) } else { None };
    drop(files);
    exit::end_other_threads(task)?;
    let old_tid = task.tid();
    exit::become_leader(task);
    crate::worker::thread_leaves(task, crate::worker::Leaving::Program);
    if let Some(own) = own {
        drop(task.set_files(Some(own)));
    }
    *regs = prepared.regs;
    take_over(task, prepared);
    crate::ptrace::after_exec(task, regs, old_tid);
    Ok(())
}

fn prepare(task: &Task, mut request: Request) -> Result<Prepared> {
    let cx = task.fs_context();
    if request.args.count() == 0 {
        request.args.push(b"")?;
    }
    let mut file = fs::open_exec(&cx, request.base.as_ref(), &request.path, request.follow)?;
    let mut start = [0; script::LINE_MAX];
    let mut scripts = 0;
    let mut name = request.name.clone();
    let len = loop {
        let len = read_start(&file, &mut start)?;
        let Some(line) = script::parse(&start[..len]) else { break len };
        let line = line?;
        scripts += 1;
        if scripts > MAX_SCRIPTS {
            return Err(Errno::ELOOP);
        }
        match line.argument {
            Some(argument) => request.args.replace_first(&[line.interpreter, argument, &name])?,
            None => request.args.replace_first(&[line.interpreter, &name])?,
        }
        name = line.interpreter.to_vec();
        file = fs::open_exec(&cx, None, &name, true)?;
    };
    let program = Program::read(file.clone(), &start[..len])?;
    let interpreter = find_interpreter(&cx, &program)?;
    let (cred, secure) = on_exec(task, &cx.cred, &file);
    build(task, &request, program, interpreter, Arc::new(cred), secure)
}

fn read_start(file: &OpenFile, start: &mut [u8; script::LINE_MAX]) -> Result<usize> {
    let mut sink = mm::Sink::kernel(start);
    while sink.remaining() > 0 && file.read_at(sink.done() as u64, &mut sink)? > 0 {}
    Ok(sink.done())
}

fn find_interpreter(cx: &FsContext, program: &Program) -> Result<Option<Program>> {
    const ELIBBAD: i32 = 80;
    let Some((offset, len)) = program.layout.interpreter else { return Ok(None) };
    let mut path = Vec::new();
    path.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    path.resize(len, 0);
    read_exact(&program.file, offset, &mut path, Errno::EIO)?;
    if path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
    let file = fs::open_exec(cx, None, &path[..end], true)?;
    let mut start = [0; script::LINE_MAX];
    let len = read_start(&file, &mut start)?;
    let bad = Errno::from_code(ELIBBAD).unwrap_or(Errno::ENOEXEC);
    Program::read(file, &start[..len]).map(Some).map_err(|e| if e == Errno::ENOEXEC { bad } else { e })
}

/// Random pages, fewer than 2^bits, as a distance in bytes; 0 where the personality says so.
fn random_pages(task: &Task, bits: u32) -> usize {
    if task.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE != 0 {
        return 0;
    }
    (hal::random::word() as usize & ((1 << bits) - 1)) << abi::PAGE_SHIFT
}

/// Where mappings without an address go, downwards: below the largest stack that the limit allows and where it may begin, as Linux does.
fn map_base(task: &Task) -> usize {
    const LEAST: u64 = 128 << 20;
    const STACK_SPREAD: usize = 1 << 34;
    const MOST: u64 = (USER_END as u64) / 6 * 5;
    let (stack, _) = task.rlimit(crate::Resource::Stack);
    let randomises = task.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE == 0;
    let gap = stack.clamp(LEAST, MOST) as usize + if randomises { STACK_SPREAD } else { 0 };
    (USER_END - gap - random_pages(task, 28)) & !(abi::PAGE_SIZE - 1)
}

fn build(
    task: &Task,
    request: &Request,
    program: Program,
    interpreter: Option<Program>,
    cred: Arc<Cred>,
    secure: bool,
) -> Result<Prepared> {
    let space = AddressSpace::new()?;
    space.set_limits(task.process().memory_limits());
    let stack_top = USER_END - random_pages(task, 22);
    let strings = request.args.bytes().len() + request.env.bytes().len() + request.name.len();
    let pointers = 8 * (request.args.count() + request.env.count());
    let stack_size = page_up(strings + pointers + STACK_ROOM);
    map_stack(&space, stack_top, stack_size, program.layout.executable_stack == Some(true))?;
    space.set_map_base(map_base(task));
    let base = interpreter.as_ref().map(|_| RELOCATED_BASE + random_pages(task, 28));
    let loaded = program.load(&space, base)?;
    let linker = interpreter.as_ref().map(|interpreter| interpreter.load(&space, None)).transpose()?;
    let brk = page_up(loaded.end) + random_pages(task, 13);
    space.set_brk_start(brk);
    let entry = linker.as_ref().map_or(loaded.entry, |linker| linker.entry);
    let vdso = vdso::map(&space)?;
    let mut auxv = auxiliary_vector(&program, &loaded, linker.as_ref(), &cred, secure);
    auxv.extend(vdso.map(|address| (at::SYSINFO_EHDR, address as u64)));
    let mut random = [0; 16];
    hal::random::fill(&mut random);
    let jitter = hal::random::word() as usize & 0x1ff0;
    let (args, env) = (&request.args, &request.env);
    let contents = Contents { top: stack_top, args, env, file_name: &request.name, random, jitter, auxv: &auxv };
    let stack = stack::lay_out(&contents)?;
    if space.write_remote(stack.pointer, &stack.bytes, true) != stack.bytes.len() {
        return Err(Errno::ENOMEM);
    }
    let mut regs = UserRegs::start(entry, stack.pointer);
    regs.sanitize();
    let image = Image { vdso: vdso.unwrap_or(0), ..image(&program, &loaded, brk, &stack) };
    let comm = request.name.rsplit(|&b| b == b'/').next().unwrap_or(&[]).to_vec();
    Ok(Prepared { space, file: program.file, cred, secure, image, regs, comm })
}

fn map_stack(space: &AddressSpace, top: usize, size: usize, executable: bool) -> Result<()> {
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::EXEC, executable);
    let request = MapRequest {
        addr: top - size,
        fixed: true,
        grows_down: true,
        name: MappingName::Stack,
        ..MapRequest::anonymous(size, prot)
    };
    space.map(request).map(|_| ())
}

fn auxiliary_vector(
    program: &Program,
    loaded: &Loaded,
    linker: Option<&Loaded>,
    cred: &Cred,
    secure: bool,
) -> Vec<(u64, u64)> {
    let [capabilities, capabilities2] = hal::cpu::user_capabilities();
    let table = program.layout.table_address.map_or(0, |address| address.wrapping_add(loaded.bias));
    alloc::vec![
        (at::MINSIGSTKSZ, crate::signal::frame::stack_needed() as u64),
        (at::HWCAP, capabilities),
        (at::PAGESZ, abi::PAGE_SIZE as u64),
        (at::CLKTCK, crate::accounting::TICKS_PER_SEC),
        (at::PHDR, table as u64),
        (at::PHENT, 56),
        (at::PHNUM, program.header.count as u64),
        (at::BASE, linker.map_or(0, |linker| linker.bias) as u64),
        (at::FLAGS, 0),
        (at::ENTRY, loaded.entry as u64),
        (at::UID, u64::from(cred.uid)),
        (at::EUID, u64::from(cred.euid)),
        (at::GID, u64::from(cred.gid)),
        (at::EGID, u64::from(cred.egid)),
        (at::SECURE, u64::from(secure)),
        (at::HWCAP2, capabilities2),
    ]
}

fn image(program: &Program, loaded: &Loaded, brk: usize, stack: &Stack) -> Image {
    let of = |executable: bool| {
        let segments = program.layout.segments.iter().filter(|s| s.prot.contains(Prot::EXEC) == executable);
        let ranges = segments.map(|s| (s.address.wrapping_add(loaded.bias), s.file_size));
        ranges.fold((usize::MAX, 0), |(low, high), (at, size)| (low.min(at), high.max(at.wrapping_add(size))))
    };
    let ((start_code, end_code), (start_data, end_data)) = (of(true), of(false));
    Image {
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk: brk,
        start_stack: stack.pointer,
        arg_start: stack.arguments.0,
        arg_end: stack.arguments.1,
        env_start: stack.environment.0,
        env_end: stack.environment.1,
        auxv: stack.auxv.clone(),
        vdso: 0,
    }
}

/// The point of no return: the calling thread, alone in its process, becomes the new program.
fn take_over(task: &Task, new: Prepared) {
    let process = task.process();
    exit::release_memory(task);
    *task.rseq.lock() = None;
    *task.alt_stack.lock() = AltStack::default();
    task.remove_syscall_work(SyscallWork::DISPATCH);
    let old = process.set_address_space(Some(new.space.clone()));
    if let Some(thread) = task.thread() {
        thread.set_page_table(new.space.page_table().clone());
        thread.task().reset_user_state();
    }
    drop(old);
    let actions = process.actions();
    if Arc::strong_count(&actions) > 2 {
        process.set_actions(Arc::new(actions.duplicate()));
    }
    process.actions().reset_handlers();
    process.timers.clear_posix();
    process.membarrier.store(0, Ordering::Relaxed);
    process.set_exe(Some(new.file));
    process.set_image(Arc::new(new.image));
    process.did_exec.store(true, Ordering::Relaxed);
    process.exit_signal.store(SIGCHLD.number(), Ordering::Relaxed);
    process.set_dumpable(if new.secure { 0 } else { 1 });
    if new.secure {
        task.parent_death_signal.store(0, Ordering::Relaxed);
    }
    task.set_cred(new.cred);
    task.set_comm(&new.comm);
    task.files().close_on_exec();
}

//! Issuing a request, waiting for its file, completing it.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Events, Result};
use fs::PollTable;
use ipc::io_uring::abi::{Cqe, SqeFlags, cqe_flag, op};
use process::Task;

use super::operation::{self, Operation};
use super::request::{Body, FileHook, FileRef, Request, Stage};
use super::timeout;
use crate::context::Context;

/// What issuing a request came to.
pub(super) enum Step {
    /// It has ended so.
    Done(Result<usize>),
    /// It has ended so; whether what follows it in its chain may go on is said apart.
    Ended { result: Result<usize>, failed: bool },
    /// It goes on when its file is ready for one of these.
    Wait(Events),
    /// It has told of news and goes on when its file has more: whatever it is ready for now counts no more.
    WaitNews(Events),
    /// A timer or another request will end it.
    Armed,
    /// It can't go on without blocking.
    Block,
}

/// A step, or the end by an error.
pub(super) fn or_done(result: Result<Step>) -> Step {
    result.unwrap_or_else(|error| Step::Done(Err(error)))
}

/// How a request may be issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Not blocking.
    Now,
    /// In a worker, which may sleep.
    Blocking,
}

/// Issues a request for the first time.
pub(super) fn begin(cx: &mut Context, request: &Arc<Request>) {
    timeout::arm_linked(cx, request);
    step(cx, request, Mode::Now);
}

/// Carries a request on that something woke.
pub(super) fn carry_on(cx: &mut Context, request: &Arc<Request>) {
    let follows = request.stage() == Stage::Issuing;
    if follows && request.workers.is_ending() {
        // Who is here has other files and memory than the process that it was for.
        return fail_chain(request.clone(), Errno::ECANCELED, false);
    }
    if follows {
        return begin(cx, request);
    }
    step(cx, request, Mode::Now);
}

/// Runs a request in a worker.
pub(super) fn block(cx: &mut Context, request: &Arc<Request>) {
    *request.worker.lock() = process::try_current();
    step(cx, request, Mode::Blocking);
    let worker = request.worker.lock().take();
    // Who cancelled it interrupts under that lock: what is cleared here was meant for this request.
    if let Some(thread) = worker.filter(|worker| !worker.is_dying()).and_then(|worker| worker.thread()) {
        thread.clear_interrupt();
    }
}

fn step(cx: &mut Context, request: &Arc<Request>, mode: Mode) {
    let operation = operation::of(request.sqe.opcode);
    let mut body = request.body.lock();
    loop {
        if request.stage() == Stage::Done {
            return;
        }
        if request.is_cancelled() {
            return finish(request, body, Err(Errno::ECANCELED), true);
        }
        if request.stage() == Stage::Worker && mode == Mode::Now {
            return;
        }
        request.set_stage(if mode == Mode::Blocking { Stage::Worker } else { Stage::Issuing });
        body.news = request.woken.swap(false, Ordering::SeqCst) || !body.again;
        let step = issue(cx, request, &mut body, operation, mode);
        body.again = true;
        match step {
            Step::Done(result) => return finish(request, body, result, result.is_err()),
            Step::Ended { result, failed } => return finish(request, body, result, failed),
            Step::Block => {
                // Nothing wakes it while a worker has it: who carries it on would wait for the worker.
                drop(body.table.take());
                match hand_over(cx, request) {
                    Ok(()) => return,
                    Err(error) => return finish(request, body, Err(error), true),
                }
            }
            Step::Wait(events) => {
                let at_once = match arm(cx, request, &mut body, events, false) {
                    Ok(ready) => ready,
                    Err(error) => return finish(request, body, Err(error), true),
                };
                if !at_once && wait(request) {
                    return;
                }
            }
            Step::WaitNews(events) => {
                if let Err(error) = arm(cx, request, &mut body, events, true) {
                    return finish(request, body, Err(error), true);
                }
                if wait(request) {
                    return;
                }
            }
            Step::Armed => {
                if let Err(error) = ensure_service(cx, request) {
                    return finish(request, body, Err(error), true);
                }
                if wait(request) {
                    return;
                }
            }
        }
    }
}

/// Makes it wait, unless it has been woken or cancelled meanwhile: then false.
fn wait(request: &Arc<Request>) -> bool {
    request.set_stage(Stage::Waiting);
    // Who wakes or cancels it from here on finds it waiting.
    if request.is_cancelled() || request.woken.load(Ordering::SeqCst) {
        request.set_stage(Stage::Issuing);
        return false;
    }
    true
}

fn hand_over(cx: &Context, request: &Arc<Request>) -> Result<()> {
    // Who carries on what follows it.
    ensure_service(cx, request)?;
    request.workers.give(cx.task, request.clone())
}

fn ensure_service(cx: &Context, request: &Request) -> Result<()> {
    if request.ring.defers() || request.workers.is_ending() { Ok(()) } else { request.workers.need_service(cx.task) }
}

/// Puts hooks into the file's wait queues; true if it is ready now. With `keep`, hooks for the same events stay as they are, and
/// readiness counts only when they are new.
fn arm(cx: &Context, request: &Request, body: &mut Body, events: Events, keep: bool) -> Result<bool> {
    ensure_service(cx, request)?;
    if keep && body.table.as_ref().is_some_and(|(_, old)| *old == events) {
        return Ok(false);
    }
    drop(body.table.take());
    let hook = Arc::new(FileHook { hook: request.hook.clone(), events });
    let exclusive = request.sqe.op_flags & operation::POLL_EXCLUSIVE != 0 && operation::is_poll(request);
    let mut table = PollTable::new(hook, exclusive);
    let file = body.file.as_ref().ok_or(Errno::EBADF)?;
    let ready = file.open().poll(&mut table) & (events | Events::ALWAYS);
    body.table = Some((table, events));
    Ok(!ready.is_empty() && !keep)
}

/// The file that a request names. `EBADF`.
fn assign_file(cx: &Context, request: &Request, body: &mut Body) -> Result<()> {
    if body.file.is_some() {
        return Ok(());
    }
    let fd = request.sqe.fd;
    let file = if request.has(SqeFlags::FIXED_FILE) {
        FileRef::Registered(request.ring.registered_file(fd)?)
    } else {
        FileRef::Open(cx.task.files().get(fd)?)
    };
    body.file = Some(file);
    Ok(())
}

fn issue(cx: &mut Context, request: &Arc<Request>, body: &mut Body, operation: &Operation, mode: Mode) -> Step {
    if operation.needs_file
        && let Err(error) = assign_file(cx, request, body)
    {
        return Step::Done(Err(error));
    }
    if let Some(error) = body.failed {
        return Step::Done(Err(error));
    }
    if mode == Mode::Now && operation.may_block && !body.again {
        return Step::Block;
    }
    let result = as_submitter(cx, request, |cx| (operation.issue)(cx, request, body, mode));
    match result {
        // A cancellation interrupts a worker; nothing restarts a request.
        Step::Done(Err(Errno::ERESTARTSYS | Errno::ERESTARTNOHAND | Errno::ERESTARTNOINTR)) => {
            Step::Done(Err(Errno::EINTR))
        }
        other => other,
    }
}

/// Runs `f` with the credentials that the request has.
fn as_submitter<R>(cx: &mut Context, request: &Request, f: impl FnOnce(&mut Context) -> R) -> R {
    let own = cx.task.cred();
    if Arc::ptr_eq(&own, &request.cred) {
        return f(cx);
    }
    cx.task.set_cred(request.cred.clone());
    let result = f(cx);
    cx.task.set_cred(own);
    result
}

type Guard<'a> = sched::MutexGuard<'a, Body>;

/// Completes a request whose body is locked.
pub(super) fn finish(request: &Arc<Request>, mut body: Guard, result: Result<usize>, failed: bool) {
    if request.stage() == Stage::Done {
        return;
    }
    request.set_stage(Stage::Done);
    // All that refers to other things goes here, where that may sleep.
    let table = body.table.take();
    let timer = body.timer.take();
    let file = body.file.take();
    let buffer = body.buffer.take();
    let taken = body.taken.take();
    let prepared = core::mem::replace(&mut body.prepared, super::request::Prepared::Nothing);
    drop(body);
    drop(table);
    if let Some(timer) = timer {
        timer.disarm();
    }
    request.hook.disconnect();
    drop((file, buffer, prepared));
    let mut flags = request.cqe_flags.load(Ordering::Relaxed);
    if let Some((taken, _)) = taken {
        flags |= cqe_flag::BUFFER | u32::from(taken.id) << cqe_flag::BUFFER_SHIFT;
    }
    complete(request, result, flags, failed);
}

/// The number that a completion tells.
pub(super) fn code(result: Result<usize>) -> i32 {
    match result {
        Ok(value) => value as i32,
        Err(error) => -error.code(),
    }
}

/// Tells the program, and goes on with what waited for it.
fn complete(request: &Arc<Request>, result: Result<usize>, flags: u32, failed: bool) {
    let ring = &request.ring;
    let removed = ring.live.lock().remove(&(request.user_data(), request.number));
    let skips = request.has(SqeFlags::CQE_SKIP_SUCCESS);
    let silent = skips && !failed || request.silent.load(Ordering::Relaxed);
    if request.sqe.opcode == op::TIMEOUT && result != Err(Errno::ECANCELED) {
        ring.timeouts.fetch_add(1, Ordering::SeqCst);
    }
    if !silent {
        let from_submitter = process::try_current().is_some_and(|task| Arc::as_ptr(&task).addr() == request.owner);
        ring.post(Cqe { user_data: request.user_data(), result: code(result), flags, extra: [0; 2] }, from_submitter);
    }
    let next = request.next.lock().take();
    let next = timeout::unlink(next, request);
    if let Some(next) = next {
        if failed && !request.has(SqeFlags::IO_HARDLINK) {
            // One failure is told for those that would not have told of success.
            fail_chain(next, Errno::ECANCELED, skips);
        } else {
            next.wake();
        }
    }
    request.workers.remove();
    super::submit::ended(ring);
    drop(removed);
}

/// Completes a request that was never issued, and all that follow it.
pub(super) fn fail_chain(first: Arc<Request>, error: Errno, silent: bool) {
    let mut at = Some(first);
    while let Some(request) = at {
        at = request.next.lock().take();
        request.silent.store(silent, Ordering::Relaxed);
        abandon(&request, error);
    }
}

/// Completes a request that is not under way with an error.
pub(super) fn abandon(request: &Arc<Request>, error: Errno) {
    let body = request.body.lock();
    finish(request, body, Err(error), true);
}

/// The task that carries something out may be another than the submitter: who that is by its address.
pub(super) fn address(task: &Task) -> usize {
    core::ptr::from_ref(task).addr()
}

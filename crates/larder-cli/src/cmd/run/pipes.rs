//! The two pipes that a command writes to, read in the order in which it writes, across both of them.
//!
//! A pipe does not say when its bytes came, so two of them that both have some have lost the order. On Linux
//! each pipe here holds one packet, which is one write of up to a page: a command that is ahead waits until it
//! is read. And an edge-triggered epoll hands out what became ready in the order in which it did. Between two
//! reads a pipe becomes ready at most once, so together this is the order of the writes. (A terminal, or
//! `2>&1`, makes a command wait for its reader in the same way.)
//!
//! Elsewhere, writes that come faster than larder reads may swap places between the two streams; within a
//! stream nothing ever does.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::Timespec;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::capture::Stream;

/// The reading ends.
#[derive(Debug)]
pub(super) struct Pipes {
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
    watch: watch::Watch,
}

/// The writing ends, for the command.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) output: OwnedFd,
    pub(super) error: OwnedFd,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// There is something to read; if `last`, nobody is left who could write more.
    Readable { stream: Stream, last: bool },
    /// The command has exited.
    Exited,
}

impl Pipes {
    /// Two new pipes.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub(super) fn open() -> io::Result<(Self, Ends)> {
        let (output, to_output) = watch::pipe()?;
        let (error, to_error) = watch::pipe()?;
        for end in [&output, &error] {
            fcntl_setfl(end, OFlags::NONBLOCK)?;
        }
        let watch = watch::Watch::new(&output, &error)?;
        let pipes = Self { output: Some(output), error: Some(error), watch };
        Ok((pipes, Ends { output: to_output, error: to_error }))
    }

    /// Whether there may be more to read.
    pub(super) fn is_open(&self) -> bool {
        self.output.is_some() || self.error.is_some()
    }

    /// Also watches for the exit of a process. False if that cannot be done here.
    pub(super) fn watch_exit(&mut self, pid: Pid) -> bool {
        self.watch.exit(pid)
    }

    /// Waits until something happens, and says what, in order. Nothing if the time is up.
    pub(super) fn wait(&mut self, timeout: Option<&Timespec>) -> io::Result<Vec<Ready>> {
        loop {
            match self.watch.wait(self.output.as_ref(), self.error.as_ref(), timeout) {
                Err(Errno::INTR) => {}
                ready => return Ok(ready?),
            }
        }
    }

    /// Reads what is there, at most once. `None` if nothing is there now; zero at the end.
    pub(super) fn read(&self, stream: Stream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let pipe = match stream {
            Stream::Output => &self.output,
            Stream::Error => &self.error,
        };
        let Some(pipe) = pipe else { return Ok(None) };
        loop {
            match rustix::io::read(pipe, &mut *buffer) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                read => return Ok(Some(read?)),
            }
        }
    }

    /// Closes one: who still writes to it gets a broken pipe.
    pub(super) fn close(&mut self, stream: Stream) {
        match stream {
            Stream::Output => self.output = None,
            Stream::Error => self.error = None,
        }
    }
}

#[cfg(target_os = "linux")]
mod watch {
    //! Packets and edges.

    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::buffer::spare_capacity;
    use rustix::event::{Timespec, epoll};
    use rustix::io::Errno;
    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::{Ready, Stream};

    const OUTPUT: u64 = 0;
    const ERROR: u64 = 1;
    const EXIT: u64 = 2;

    /// A pipe whose writer waits until what it wrote was read.
    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        let Ok((read, write)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT) else {
            return Ok(pipe_with(PipeFlags::CLOEXEC)?);
        };
        // One page, the least there is. Where that is refused the order may suffer, and nothing else.
        let _ = fcntl_setpipe_size(&write, 1);
        Ok((read, write))
    }

    #[derive(Debug)]
    pub(super) struct Watch {
        epoll: OwnedFd,
        exit: Option<OwnedFd>,
    }

    impl Watch {
        pub(super) fn new(output: &OwnedFd, error: &OwnedFd) -> io::Result<Self> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, output, epoll::EventData::new_u64(OUTPUT), edge)?;
            epoll::add(&epoll, error, epoll::EventData::new_u64(ERROR), edge)?;
            Ok(Self { epoll, exit: None })
        }

        pub(super) fn exit(&mut self, pid: Pid) -> bool {
            let Ok(exit) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
            let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
            let added = epoll::add(&self.epoll, &exit, epoll::EventData::new_u64(EXIT), edge).is_ok();
            self.exit = Some(exit);
            added
        }

        pub(super) fn wait(
            &self,
            _: Option<&OwnedFd>,
            _: Option<&OwnedFd>,
            timeout: Option<&Timespec>,
        ) -> Result<Vec<Ready>, Errno> {
            let mut events: Vec<epoll::Event> = Vec::with_capacity(3);
            epoll::wait(&self.epoll, spare_capacity(&mut events), timeout)?;
            let ready = events.into_iter().map(|event| {
                let (data, flags) = (event.data, event.flags);
                let last = flags.contains(epoll::EventFlags::HUP);
                match data.u64() {
                    OUTPUT => Ready::Readable { stream: Stream::Output, last },
                    ERROR => Ready::Readable { stream: Stream::Error, last },
                    _ => Ready::Exited,
                }
            });
            Ok(ready.collect())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod watch {
    //! What every Unix has.

    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::{Errno, FdFlags, fcntl_setfd};
    use rustix::process::Pid;

    use super::{Ready, Stream};

    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe()?;
        for end in [&read, &write] {
            fcntl_setfd(end, FdFlags::CLOEXEC)?;
        }
        Ok((read, write))
    }

    #[derive(Debug)]
    pub(super) struct Watch;

    impl Watch {
        pub(super) fn new(_: &OwnedFd, _: &OwnedFd) -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn exit(&mut self, _: Pid) -> bool {
            false
        }

        pub(super) fn wait(
            &self,
            output: Option<&OwnedFd>,
            error: Option<&OwnedFd>,
            timeout: Option<&Timespec>,
        ) -> Result<Vec<Ready>, Errno> {
            let open = [(Stream::Output, output), (Stream::Error, error)];
            let open: Vec<_> = open.into_iter().filter_map(|(stream, pipe)| Some((stream, pipe?))).collect();
            let mut fds: Vec<_> = open.iter().map(|(_, pipe)| PollFd::new(*pipe, PollFlags::IN)).collect();
            poll(&mut fds, timeout)?;
            let ready = open.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
            let ready = ready.map(|((stream, _), fd)| Ready::Readable {
                stream: *stream,
                last: fd.revents().contains(PollFlags::HUP),
            });
            Ok(ready.collect())
        }
    }
}

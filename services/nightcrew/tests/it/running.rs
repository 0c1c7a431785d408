//! The built program as a process that stays: `up` and `service`.

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A process of the program.
pub(crate) struct Running {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// Waits until it says something, and gives the line.
    pub(crate) fn says(&mut self, wanted: &str) -> String {
        let line = self.said.by_ref().map(Result::unwrap).find(|line| line.contains(wanted));
        line.unwrap_or_else(|| panic!("it ended before it said {wanted:?}"))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends it as an operator does; it must end well.
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is left of one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

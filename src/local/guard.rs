//! A watchdog that ends the servers when their supervisor is gone, however it
//! went.
//!
//! It is a shell that reads a pipe whose other end only the supervisor holds.
//! The end of the pipe is the end of the supervisor: the kernel closes it on a
//! normal exit, a panic and `kill -9` alike. It has a process group of its own,
//! so what the terminal or a test runner sends to the supervisor's group passes
//! it by. The kernel's parent-death signal would do most of this, but not on
//! every system, and not for a thread that ends before its process.

use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::error::LocalError;

/// The supervisor's end of the pipe. Dropped, it ends every server that was
/// added and not removed.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts the watchdog.
    ///
    /// # Errors
    /// There is no `/bin/sh`, or no room for a process.
    pub fn start() -> Result<Self, LocalError> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(LocalError::io("start the watchdog"))?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Ends process `pid` when the supervisor is gone.
    ///
    /// # Errors
    /// The watchdog is gone.
    pub fn watch(&mut self, pid: u32) -> Result<(), LocalError> {
        self.say(&format!("watch {pid}\n"))
    }

    /// Forgets process `pid`, which has ended: its number may soon be another's.
    ///
    /// # Errors
    /// The watchdog is gone.
    pub fn forget(&mut self, pid: u32) -> Result<(), LocalError> {
        self.say(&format!("forget {pid}\n"))
    }

    /// Removes folder `dir`, and all it holds, at the end.
    ///
    /// # Errors
    /// The watchdog is gone.
    pub fn remove_at_end(&mut self, dir: &Path) -> Result<(), LocalError> {
        self.say(&format!("remove {}\n", dir.display()))
    }

    fn say(&mut self, line: &str) -> Result<(), LocalError> {
        match &mut self.pipe {
            Some(pipe) => {
                pipe.write_all(line.as_bytes()).map_err(LocalError::io("tell the watchdog"))
            }
            None => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Nothing is left to do about a watchdog that can't be waited for.
        let _ = self.shell.wait();
    }
}

/// A fast shutdown (SIGINT) first, which takes a checkpoint; then at once
/// (SIGQUIT), and by force. A server's children end when they miss it. One that
/// has ended but is not reaped, as in containers without an init, counts as gone.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids= ; dirs=
while IFS=' ' read -r word rest; do
  case $word in
    watch) pids="$pids $rest" ;;
    forget) kept=
      for pid in $pids; do [ "$pid" = "$rest" ] || kept="$kept $pid"; done
      pids=$kept ;;
    remove) dirs="$rest
$dirs" ;;
  esac
done
alive() {
  for pid in $pids; do
    kill -0 "$pid" 2>/dev/null || continue
    stat= ; [ ! -r "/proc/$pid/stat" ] || IFS= read -r stat 2>/dev/null < "/proc/$pid/stat"
    case $stat in *') Z '*) ;; *) return 0 ;; esac
  done
  return 1
}
for signal in INT QUIT KILL; do
  for pid in $pids; do kill -s $signal "$pid" 2>/dev/null; done
  n=0
  while [ $n -lt 100 ] && alive; do sleep 0.05; n=$((n + 1)); done
  alive || break
done
printf '%s' "$dirs" | while IFS= read -r dir; do [ -n "$dir" ] && rm -rf -- "$dir"; done
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    #[test]
    fn end_of_the_supervisor_ends_what_is_watched_and_removes_folders() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("with a blank");
        std::fs::create_dir(&scratch).unwrap();
        let (mut watched, mut forgotten) = (sleeper(), sleeper());
        let mut guard = Guard::start().unwrap();
        guard.watch(watched.id()).unwrap();
        guard.watch(forgotten.id()).unwrap();
        guard.forget(forgotten.id()).unwrap();
        guard.remove_at_end(&scratch).unwrap();
        // A zombie still answers to its number, so reap while the guard waits.
        let reaper = std::thread::spawn(move || watched.wait().unwrap());
        drop(guard);
        assert!(!reaper.join().unwrap().success());
        assert!(!scratch.exists());
        assert_eq!(forgotten.try_wait().unwrap(), None, "a forgotten process lives on");
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
    }
}

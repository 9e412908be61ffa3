//! Answers the console's queries on the control thread. Those of one client come
//! one after another; one that waits, as PAUSE does, keeps nobody else waiting.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::command::{Command, read};
use super::console;
use super::source::Source;
use crate::engine::console::{ConsoleReply, ConsoleRequest};

/// Answers requests until every sender is gone.
///
/// Cancel-safe: a request that was taken and not answered drops its sender,
/// which its client sees.
pub async fn run(mut requests: mpsc::Receiver<ConsoleRequest>, source: Arc<dyn Source>) {
    let mut answers = JoinSet::new();
    while let Some(ConsoleRequest { text, mut reply }) = requests.recv().await {
        while answers.try_join_next().is_some() {}
        let source = Arc::clone(&source);
        answers.spawn(async move {
            let replies = tokio::select! {
                replies = answer(&text, source.as_ref()) => replies,
                // The client has left or cancelled: nobody waits any more.
                () = reply.closed() => return,
            };
            // The client may have left meanwhile.
            let _ = reply.send(replies);
        });
    }
}

/// The replies to `text`, in order. An error is the last of them; if `text`
/// can't be read as a whole, nothing of it is done.
pub async fn answer(text: &str, source: &dyn Source) -> Vec<ConsoleReply> {
    let commands = match read(text) {
        Ok(commands) => commands,
        Err(refusal) => return vec![refusal.into()],
    };
    if commands.is_empty() {
        return vec![ConsoleReply::Empty];
    }
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        match command {
            // Taken anew each time: a command before may have changed it.
            Command::Show(topic) => replies.push(console::show(topic, &source.inputs().await)),
            Command::Find(topic, number) => {
                replies.push(console::find(topic, number, &source.inputs().await));
            }
            Command::Act(action) => match source.carry_out(action).await {
                Ok(outcome) => replies.push(console::done(outcome)),
                Err(refusal) => {
                    replies.push(refusal.into());
                    break;
                }
            },
        }
    }
    replies
}

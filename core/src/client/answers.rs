//! Routes the leader's answers to what they were asked for.

use super::Client;
use super::request::{ClientRequest, FileReply, FileRequest};
use super::then::Then;
use crate::attributes::Attributes;
use crate::errno::Errno;
use crate::wire::client_master::Answer;
use bytes::Bytes;

impl Client {
    /// A call has ended, with an answer or without.
    pub(super) fn on_call_ended(&mut self, then: Then, result: Result<Answer, Errno>) {
        match then {
            Then::Lookup {
                operation,
                parent,
                name,
            } => self.on_looked_up(operation, parent, &name, result),
            Then::Attributes { operation } => self.on_attributes(operation, result),
            Then::Again { request } => self.on_prerequisite(*request, entry(result)),
            Then::Changed { operation, inode } => self.on_changed(operation, inode, result),
            Then::Made {
                operation,
                parent,
                name,
            }
            | Then::Linked {
                operation,
                parent,
                name,
            } => self.on_made(operation, parent, &name, result),
            Then::Created {
                operation,
                parent,
                name,
                credentials,
                flags,
            } => self.on_created(operation, (parent, name), (credentials, flags), result),
            Then::Opened {
                operation,
                inode,
                credentials,
                flags,
            } => self.on_opened(operation, inode, (credentials, flags), result),
            Then::Removed {
                operation,
                parent,
                name,
            } => self.on_removed(operation, parent, &name, result),
            Then::Renamed {
                operation,
                from,
                to,
                mode,
            } => self.on_renamed(operation, &from, &to, mode, result),
            Then::Listed { operation, inode } => self.on_listed(operation, inode, result),
            Then::AttributeChanged { operation, inode } => {
                self.on_xattr_changed(operation, inode, result);
            }
            Then::Bytes { .. } | Then::FileSystem { .. } | Then::Told { .. } => {
                self.pass_on(then, result);
            }
            other => self.on_file_call_ended(other, result),
        }
    }

    /// Calls about the content of a file.
    fn on_file_call_ended(&mut self, then: Then, result: Result<Answer, Errno>) {
        match then {
            Then::Truncated {
                inode,
                operation,
                change,
                opened,
            } => self.on_truncated(inode, operation, (change, opened), result),
            Then::Allocated {
                inode,
                operation,
                offset,
                length,
                alone,
            } => self.on_allocated(inode, operation, (offset, length), alone, result),
            Then::Lease { inode, index } => self.on_lease((inode, index), result),
            Then::Committed { inode } => self.on_committed(inode, result),
            Then::Released { leases } => self.on_released(leases, result),
            Then::Located { inode, index } => self.on_located(inode, index, result),
            Then::Unsettled { asked } => self.on_unsettled(asked, result),
            Then::Abandoned => self.on_abandoned(result),
            _ => {}
        }
    }

    /// Answers that are only passed on.
    fn pass_on(&mut self, then: Then, result: Result<Answer, Errno>) {
        let (operation, result) = match (then, result) {
            (Then::Told { operation }, result) => (
                operation,
                result.map(|answer| FileReply::Told(Box::new(answer))),
            ),
            (Then::Bytes { operation }, Ok(Answer::Bytes(bytes))) => {
                (operation, Ok(FileReply::Bytes(Bytes::from(bytes))))
            }
            (Then::FileSystem { operation }, Ok(Answer::FileSystem(found))) => {
                (operation, Ok(FileReply::FileSystem(found)))
            }
            (Then::Bytes { operation } | Then::FileSystem { operation }, result) => {
                (operation, Err(result.err().unwrap_or(Errno::EIO)))
            }
            _ => return,
        };
        self.answer(operation, result);
    }

    /// What a request needed first is known.
    fn on_prerequisite(&mut self, request: ClientRequest, result: Result<Attributes, Errno>) {
        if let Ok(attributes) = result {
            self.learn(attributes);
        }
        match (&request.body, result) {
            (FileRequest::Rename { .. }, result) => self.on_rename_source(request, result),
            (_, Err(errno)) => self.answer(request.operation, Err(errno)),
            (
                &FileRequest::Read {
                    inode,
                    handle,
                    offset,
                    length,
                },
                Ok(attributes),
            ) => {
                let size = self.seen_size(&attributes);
                let range = (offset, u64::from(length));
                self.read_sized(request, inode, handle, range, size);
            }
            (
                &FileRequest::Seek {
                    inode,
                    offset,
                    data,
                },
                Ok(attributes),
            ) => {
                let size = self.seen_size(&attributes);
                self.seek(request.operation, inode, (offset, data), size);
            }
            _ => unreachable!("only these have prerequisites"),
        }
    }
}

/// The attributes of an answer that must have some.
fn entry(result: Result<Answer, Errno>) -> Result<Attributes, Errno> {
    match result {
        Ok(Answer::Entry(attributes)) => Ok(attributes),
        Ok(_) => Err(Errno::EIO),
        Err(errno) => Err(errno),
    }
}

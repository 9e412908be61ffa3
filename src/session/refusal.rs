//! Errors of the router's own, as the client sees them.

use crate::protocol::encode::{ErrorReport, error_response, notice_response};
use crate::types::SqlState;

/// A statement that the router refuses, with the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The SQLSTATE.
    pub state: SqlState,
    /// What is refused; lower case, no full stop, no hosts, no secrets.
    pub message: String,
    /// What happened around it.
    pub detail: Option<String>,
    /// The way out.
    pub hint: Option<String>,
    /// The server's function that drivers know the error by.
    pub routine: Option<&'static str>,
}

impl Refused {
    /// An error without a hint.
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), detail: None, hint: None, routine: None }
    }

    /// The same with the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The whole ErrorResponse frame of an ERROR.
    pub fn frame(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        error_response(&mut out, &self.report("ERROR"));
        out
    }

    /// The whole ErrorResponse frame of a FATAL: the connection closes.
    pub fn fatal_frame(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        error_response(&mut out, &self.report("FATAL"));
        out
    }

    /// The whole NoticeResponse frame of a WARNING.
    pub fn warning_frame(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        notice_response(&mut out, &self.report("WARNING"));
        out
    }

    fn report(&self, severity: &'static str) -> ErrorReport<'_> {
        let mut report = ErrorReport::error(self.state, &self.message);
        report.severity = severity;
        report.detail = self.detail.as_deref();
        report.hint = self.hint.as_deref();
        report.routine = self.routine;
        report
    }
}

/// What every statement but the transaction's end gets once it has failed.
pub(super) fn in_failed_transaction() -> Refused {
    Refused::new(
        IN_FAILED_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// `feature_not_supported`
pub(super) const NOT_SUPPORTED: SqlState = SqlState::new("0A000");
/// `syntax_error`
pub(super) const SYNTAX_ERROR: SqlState = SqlState::new("42601");
/// `in_failed_sql_transaction`
const IN_FAILED_TRANSACTION: SqlState = SqlState::new("25P02");
/// `no_active_sql_transaction`
pub(super) const NO_TRANSACTION: SqlState = SqlState::new("25P01");
/// `active_sql_transaction`
pub(super) const ACTIVE_TRANSACTION: SqlState = SqlState::new("25001");
/// `invalid_sql_statement_name`
pub(super) const NO_STATEMENT: SqlState = SqlState::new("26000");
/// `duplicate_prepared_statement`
pub(super) const DUPLICATE_STATEMENT: SqlState = SqlState::new("42P05");
/// `invalid_savepoint_specification`
pub(super) const NO_SAVEPOINT: SqlState = SqlState::new("3B001");
/// `program_limit_exceeded`
pub(super) const LIMIT_EXCEEDED: SqlState = SqlState::new("54000");
/// `configuration_limit_exceeded`
pub(super) const LIMIT_EXCEEDED_BY_CONFIGURATION: SqlState = SqlState::new("53400");
/// `protocol_violation`
pub(super) const PROTOCOL_VIOLATION: SqlState = SqlState::new("08P01");
/// `invalid_parameter_value`
pub(super) const INVALID_VALUE: SqlState = SqlState::new("22023");
/// `object_not_in_prerequisite_state`
pub(super) const NOT_IN_STATE: SqlState = SqlState::new("55000");
/// `undefined_object`
pub(super) const UNDEFINED_OBJECT: SqlState = SqlState::new("42704");
/// `connection_failure`
pub(super) const CONNECTION_FAILURE: SqlState = SqlState::new("08006");
/// `transaction_resolution_unknown`
pub(super) const OUTCOME_UNKNOWN: SqlState = SqlState::new("08007");
/// `invalid_cursor_name`
pub(super) const NO_CURSOR: SqlState = SqlState::new("34000");

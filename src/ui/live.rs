//! The picture at the foot of the terminal: a line a node, and one for all together. Pure: what to draw, from what
//! is known, the time and the size of the terminal.

use std::time::Duration;

use super::line::Line;
use super::progress::{Activity, Progress, State};
use super::style::Style;
use super::text::count;

/// How often it is drawn.
pub const TICK: Duration = Duration::from_millis(100);
/// A step that takes longer than this shows its own time.
const SLOW: Duration = Duration::from_secs(5);
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// At most `rows` lines, each narrower than `columns`.
pub fn picture(progress: &Progress, now: Duration, columns: usize, rows: usize) -> Vec<Line> {
    // The last column stays free: some terminals wrap as soon as it is written to.
    let columns = columns.saturating_sub(1).max(1);
    // A third stays free for what happens; two more are taken by what is hidden, and by the total.
    let shown = select(progress, (rows * 2 / 3).saturating_sub(2));
    let names = shown.iter().map(|(name, _)| Line::from(*name).width());
    let widest = names.max().unwrap_or_default().min(columns / 4);
    let mut lines: Vec<Line> = shown
        .iter()
        .map(|(name, activity)| row(name, widest, activity, progress.dry_run, now, columns))
        .collect();
    let hidden = progress.nodes.len() - shown.len();
    if hidden > 0 && !shown.is_empty() {
        lines.push(Line::new().styled(Style::Dim, format!("  … and {hidden} more")).truncate(columns));
    }
    if progress.nodes.len() > 1 || progress.interrupted || shown.is_empty() {
        lines.push(total(progress, now, columns));
    }
    lines
}

/// The nodes there is room for, in the inventory's order: those at work before those that wait, and those that
/// have ended last.
fn select(progress: &Progress, room: usize) -> Vec<(&str, &Activity)> {
    let urgency = |state: State| match state {
        State::Working => 0,
        State::Failed => 1,
        State::Waiting => 2,
        State::Queued => 3,
        State::Skipped | State::Interrupted => 4,
        State::Done => 5,
    };
    let mut order: Vec<usize> = (0..progress.nodes.len()).collect();
    order.sort_by_key(|at| (urgency(progress.nodes[*at].state), *at));
    order.truncate(room);
    order.sort_unstable();
    order.into_iter().filter_map(|at| progress.nodes.get_index(at)).map(|(n, a)| (n.as_str(), a)).collect()
}

fn row(name: &str, widest: usize, activity: &Activity, dry_run: bool, now: Duration, columns: usize) -> Line {
    let (mark, style) = mark(activity.state, now);
    let name = Line::new().styled(Style::Strong, name).truncate(widest).pad(widest);
    let left = Line::new().styled(style, mark).text(" ").join(name).text("  ").join(doing(activity));
    let changed = match (activity.changed, dry_run) {
        (0, _) => Line::new(),
        (changed, false) => Line::new().styled(Style::Changed, format!("{changed} changed")),
        (changed, true) => Line::new().styled(Style::Changed, count(changed, "change")),
    };
    let passed = now.saturating_sub(activity.since);
    let step = match activity.state {
        State::Working if passed >= SLOW => Line::from(" (").join(time(passed)).text(")"),
        _ => Line::new(),
    };
    beside(left, step, changed.join(time(activity.elapsed(now)).pad_left(7)), columns)
}

/// The mark differs in form too, not in colour alone.
fn mark(state: State, now: Duration) -> (&'static str, Style) {
    match state {
        State::Queued => ("·", Style::Dim),
        State::Working => {
            (SPINNER[(now.as_millis() / TICK.as_millis()) as usize % SPINNER.len()], Style::Hint)
        }
        State::Waiting => ("…", Style::Dim),
        State::Done => ("✓", Style::Good),
        State::Failed => ("✗", Style::Bad),
        State::Skipped => ("-", Style::Warning),
        State::Interrupted => ("!", Style::Warning),
    }
}

fn doing(activity: &Activity) -> Line {
    let at = match &activity.role {
        Some(role) => Line::new().styled(Style::Dim, role).text("  "),
        None => Line::new(),
    };
    match activity.state {
        State::Queued => Line::new().styled(Style::Dim, "queued"),
        State::Working => at.text(&activity.doing),
        State::Waiting => at.styled(Style::Dim, &activity.doing),
        State::Done => Line::new().styled(Style::Good, "done"),
        State::Failed => Line::new().styled(Style::Bad, "failed").text(": ").text(&activity.doing),
        State::Skipped => Line::new().styled(Style::Warning, "skipped").text(": ").text(&activity.doing),
        State::Interrupted => Line::new().styled(Style::Warning, "interrupted"),
    }
}

/// `4 of 7 nodes done, 12 changed`
fn total(progress: &Progress, now: Duration, columns: usize) -> Line {
    let activities = progress.nodes.values();
    let ended = activities.clone().filter(|activity| activity.state.is_end()).count();
    let changed: usize = activities.map(|activity| activity.changed).sum();
    let what = if progress.dry_run { count(changed, "change") } else { format!("{changed} changed") };
    let done = Line::from(format!("  {ended} of {} done, {what}", count(progress.nodes.len(), "node")));
    let left = match progress.interrupted {
        false => done,
        true => {
            Line::new().styled(Style::Warning, "! finishing running steps, Ctrl-C again stops now").join(done)
        }
    };
    beside(left, Line::new(), time(now), columns)
}

/// `0:07`, `1:05`, `1:02:03`
fn time(time: Duration) -> Line {
    let (hours, minutes, seconds) = (time.as_secs() / 3600, time.as_secs() / 60 % 60, time.as_secs() % 60);
    Line::new().styled(
        Style::Dim,
        match hours {
            0 => format!("{minutes}:{seconds:02}"),
            _ => format!("{hours}:{minutes:02}:{seconds:02}"),
        },
    )
}

/// `left`, cut if need be, `after` it, and `right` at the right edge.
fn beside(left: Line, after: Line, right: Line, columns: usize) -> Line {
    let room = columns.saturating_sub(right.width() + 2);
    let left = left.truncate(room.saturating_sub(after.width())).join(after);
    left.pad(room).text("  ").join(right).truncate(columns)
}

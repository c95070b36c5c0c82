//! Draws a run while it goes, and tells what it came to.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

use super::failure::Failures;
use super::line::Line;
use super::progress::Progress;
use super::report::Report;
use super::screen::Stream;
use super::{Format, Ui, feed, fold, json, live, markdown, page, summary};
use crate::engine::event::Event;
use crate::engine::record::Record;

/// How a log is looked after.
const LOG_TICK: Duration = Duration::from_secs(1);

/// What is shown while a run goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// Lines that stay.
    Log,
    /// Lines that stay, above a picture that moves.
    Live,
}

pub struct Follow<'a> {
    ui: &'a Ui,
    meanwhile: Meanwhile,
    record: Option<Record>,
    report: Report,
    progress: Progress,
    started: Instant,
    /// Something stands above what is told at the end.
    said: bool,
}

impl Drop for Follow<'_> {
    /// A run that is given up leaves no picture behind.
    fn drop(&mut self) {
        self.ui.screen.clear();
    }
}

impl<'a> Follow<'a> {
    pub fn new(ui: &'a Ui, record: Option<Record>) -> Self {
        let meanwhile = match ui.settings {
            settings if settings.quiet || settings.format == Format::Json => Meanwhile::Nothing,
            _ if ui.screen.is_live() => Meanwhile::Live,
            _ => Meanwhile::Log,
        };
        let (report, progress) = (Report::default(), Progress::default());
        Self { ui, meanwhile, record, report, progress, started: Instant::now(), said: false }
    }

    /// Until the run is finished, or nobody is left to tell.
    pub async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        let period = if self.meanwhile == Meanwhile::Live { live::TICK } else { LOG_TICK };
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => {
                        self.event(&event, self.started.elapsed());
                        if matches!(event, Event::RunFinished { .. }) {
                            break;
                        }
                    }
                    None => break,
                },
                _ = ticks.tick() => self.tick(self.started.elapsed()),
            }
        }
        self.finish();
    }

    pub fn event(&mut self, event: &Event, now: Duration) {
        self.write_down(event);
        if self.ui.settings.format == Format::Json {
            self.ui.written(json::event(event));
        }
        self.report.take(event);
        self.progress.take(event, now);
        if self.meanwhile != Meanwhile::Nothing {
            let lines = feed::lines(event, &self.report, self.ui.settings.verbose);
            self.say(lines);
        }
    }

    pub fn tick(&mut self, now: Duration) {
        match self.meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Log => {
                let report = &self.report;
                let long = self.progress.long(now).into_iter().map(|(node, activity, passed)| {
                    let passed = passed.as_millis() as u64;
                    feed::still(report, node, activity.role.as_deref(), &activity.doing, passed)
                });
                let lines = long.collect();
                self.say(lines);
            }
            Meanwhile::Live => {
                let columns = self.ui.screen.columns(Stream::Err).unwrap_or(80);
                let rows = self.ui.screen.rows(Stream::Err);
                self.progress.interrupted = self.ui.screen.is_interrupted();
                self.ui.screen.draw(&live::picture(&self.progress, now, columns, rows));
            }
        }
    }

    pub fn finish(self) {
        self.ui.screen.clear();
        match self.ui.settings.format {
            Format::Json => {}
            Format::Markdown => self.ui.screen.bytes(Stream::Out, markdown::page(&self.report)),
            Format::Text => self.told(),
        }
    }

    /// Lines that stay, while the run goes.
    fn say(&mut self, lines: Vec<Line>) {
        self.said |= !lines.is_empty();
        self.ui.screen.lines(Stream::Err, &lines);
    }

    fn told(&self) {
        let Ui { settings, screen } = self.ui;
        let loud = !settings.quiet;
        if self.said {
            screen.lines(Stream::Err, &[Line::new()]);
        }
        if self.report.dry_run {
            let plan = page::plan(&fold::groups(&self.report), screen.columns(Stream::Out));
            screen.lines(Stream::Out, &plan);
        }
        if loud {
            screen.lines(Stream::Err, &page::notes(&self.report));
        }
        screen.lines(Stream::Err, &Failures::of(&self.report).lines());
        if loud || self.report.dry_run {
            let table = summary::table(&self.report).lines(screen.columns(Stream::Out));
            screen.lines(Stream::Out, &table);
            screen.lines(Stream::Out, &[Line::new(), summary::closing(&self.report)]);
        } else if !summary::succeeded(&self.report) {
            screen.lines(Stream::Err, &[summary::closing(&self.report)]);
        }
    }

    /// A full disk must not stop a run; it is told once.
    fn write_down(&mut self, event: &Event) {
        let Some(record) = &mut self.record else { return };
        if let Err(e) = record.write(event) {
            let path = record.path.display().to_string();
            self.ui.warning(&format!("the run's record {path} ends here: {e}"));
            self.record = None;
        }
    }
}

//! Tables without borders: columns aligned by their width on the screen, numbers to the right.

use super::line::Line;
use super::style::Style;

/// Between two columns.
const GAP: usize = 2;
/// A column is not made narrower than this to fit the terminal, and one of numbers not at all.
const NARROWEST: usize = 6;

#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<Line>,
    rows: Vec<Vec<Line>>,
}

impl Table {
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        let columns = columns.into_iter().map(|name| Line::new().styled(Style::Dim, name)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// A row may be shorter than the header; what is missing is empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Line>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines, at most `columns` wide if given.
    pub fn lines(&self, columns: Option<usize>) -> Vec<Line> {
        let widths = self.widths(columns);
        let right: Vec<bool> = (0..widths.len()).map(|at| self.is_numeric(at)).collect();
        std::iter::once(&self.columns)
            .chain(&self.rows)
            .map(|row| align(row, &widths, &right, columns))
            .collect()
    }

    pub fn header(&self) -> &[Line] {
        &self.columns
    }

    pub fn rows(&self) -> impl Iterator<Item = &[Line]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// Which columns hold numbers.
    pub fn numeric(&self) -> impl Iterator<Item = bool> {
        (0..self.columns.len()).map(|at| self.is_numeric(at))
    }

    fn cells(&self, at: usize) -> impl Iterator<Item = &Line> {
        self.rows.iter().filter_map(move |row| row.get(at))
    }

    /// Natural widths; while they do not fit, the widest column of text gives way.
    fn widths(&self, columns: Option<usize>) -> Vec<usize> {
        let count = self.rows.iter().map(Vec::len).chain([self.columns.len()]).max().unwrap_or_default();
        let mut widths: Vec<usize> = (0..count)
            .map(|at| self.cells(at).chain(self.columns.get(at)).map(Line::width).max().unwrap_or_default())
            .collect();
        let Some(available) = columns else { return widths };
        let gaps = GAP * count.saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > available {
            let texts = widths.iter_mut().enumerate().filter(|(at, _)| !self.is_numeric(*at));
            match texts.map(|(_, width)| width).max() {
                Some(widest) if *widest > NARROWEST => *widest -= 1,
                _ => break,
            }
        }
        widths
    }

    /// Whether every cell of a column is a number, perhaps with a unit.
    fn is_numeric(&self, at: usize) -> bool {
        let numeric = |cell: &Line| {
            let text = cell.plain();
            let first = text.split_whitespace().next().unwrap_or("0");
            first.trim_end_matches('%').parse::<f64>().is_ok()
        };
        self.cells(at).next().is_some() && self.cells(at).all(numeric)
    }
}

fn align(row: &[Line], widths: &[usize], right: &[bool], columns: Option<usize>) -> Line {
    let mut line = Line::new();
    for (at, width) in widths.iter().enumerate() {
        let cell = row.get(at).cloned().unwrap_or_default().truncate(*width);
        let cell = if right[at] { cell.pad_left(*width) } else { cell.pad(*width) };
        line = line.join(cell.indent(if at == 0 { 0 } else { GAP }));
    }
    match columns {
        Some(columns) => line.trim_end().truncate(columns),
        None => line.trim_end(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["node", "host", "changed", "time"]);
        table.row(["orpi-1", "orpi-1.home.arpa", "12", "1.2 s"].map(Line::from));
        table.row(["日本", "nas.home.arpa", "3", "850 ms"].map(Line::from));
        table
    }

    fn shown(columns: Option<usize>) -> String {
        table().lines(columns).iter().map(|line| line.plain() + "\n").collect()
    }

    #[test]
    fn columns_are_aligned_by_width_and_numbers_to_the_right() {
        insta::assert_snapshot!(shown(None), @r"
        node    host              changed    time
        orpi-1  orpi-1.home.arpa       12   1.2 s
        日本    nas.home.arpa           3  850 ms
        ");
    }

    #[test]
    fn the_widest_column_gives_way_on_a_narrow_terminal() {
        insta::assert_snapshot!(shown(Some(34)), @r"
        node    host       changed    time
        orpi-1  orpi-1.h…       12   1.2 s
        日本    nas.home…        3  850 ms
        ");
        for columns in 1..60 {
            assert!(table().lines(Some(columns)).iter().all(|line| line.width() <= columns));
        }
    }
}

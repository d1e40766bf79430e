//! Small matrices over the field, and the one that is our format.
//!
//! Owns inversion and the systematic matrix. Leaves slices to `kernel`.

use crate::field::{inverse, multiply, power};

/// A matrix, row by row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    cells: Vec<u8>,
}

impl Matrix {
    fn from_fn(rows: usize, columns: usize, cell: impl Fn(usize, usize) -> u8) -> Self {
        let all = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let cells = all.map(|(row, column)| cell(row, column)).collect();
        Self {
            rows,
            columns,
            cells,
        }
    }

    /// The matrix of a code: its first `data` rows are the unit matrix, and any
    /// `data` of its rows can be inverted.
    ///
    /// Row r of a Vandermonde matrix holds the powers of r; any `data` of its rows
    /// can be inverted because the r differ. That stays so when all is multiplied
    /// by the inverse of the topmost square.
    pub(crate) fn systematic(data: usize, parity: usize) -> Self {
        let vandermonde =
            Self::from_fn(data + parity, data, |row, column| power(row as u8, column));
        let top = vandermonde.select(0..data);
        vandermonde.times(&top.inverted().expect("rows of different powers"))
    }

    pub(crate) fn row(&self, row: usize) -> &[u8] {
        &self.cells[row * self.columns..][..self.columns]
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The matrix of those columns, in that order.
    pub(crate) fn select_columns(&self, columns: &[usize]) -> Self {
        Self::from_fn(self.rows, columns.len(), |row, column| {
            self.row(row)[columns[column]]
        })
    }

    /// The matrix of those rows, in that order.
    pub(crate) fn select(&self, rows: impl Iterator<Item = usize>) -> Self {
        let rows: Vec<usize> = rows.collect();
        Self::from_fn(rows.len(), self.columns, |row, column| {
            self.row(rows[row])[column]
        })
    }

    pub(crate) fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows(), "matrices that fit");
        Self::from_fn(self.rows(), other.columns, |row, column| {
            let pairs = self.row(row).iter().zip(0..);
            let products = pairs.map(|(&cell, at)| multiply(cell, other.row(at)[column]));
            products.fold(0, |sum, product| sum ^ product)
        })
    }

    /// The inverse, by elimination; `None` if there is none.
    pub(crate) fn inverted(&self) -> Option<Self> {
        let size = self.columns;
        assert_eq!(self.rows(), size, "a square");
        let mut left = self.clone();
        let mut right = Self::from_fn(size, size, |row, column| u8::from(row == column));
        for pivot in 0..size {
            let row = (pivot..size).find(|&row| left.row(row)[pivot] != 0)?;
            let scale = inverse(left.row(row)[pivot]);
            for side in [&mut left, &mut right] {
                side.swap(pivot, row);
                side.row_mut(pivot)
                    .iter_mut()
                    .for_each(|cell| *cell = multiply(*cell, scale));
            }
            for row in (0..size).filter(|&row| row != pivot) {
                let factor = left.row(row)[pivot];
                left.subtract(row, pivot, factor);
                right.subtract(row, pivot, factor);
            }
        }
        Some(right)
    }

    fn row_mut(&mut self, row: usize) -> &mut [u8] {
        &mut self.cells[row * self.columns..][..self.columns]
    }

    fn swap(&mut self, a: usize, b: usize) {
        for column in 0..self.columns {
            self.cells
                .swap(a * self.columns + column, b * self.columns + column);
        }
    }

    /// Takes `factor` times the row `other` from `row`.
    fn subtract(&mut self, row: usize, other: usize, factor: u8) {
        for column in 0..self.columns {
            let product = multiply(factor, self.row(other)[column]);
            self.row_mut(row)[column] ^= product;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_starts_with_the_unit_matrix() {
        for (data, parity) in [(2, 1), (4, 2), (8, 3), (32, 8)] {
            let matrix = Matrix::systematic(data, parity);
            let unit = Matrix::from_fn(data, data, |row, column| u8::from(row == column));
            assert_eq!(matrix.select(0..data), unit);
            assert_eq!(matrix.rows(), data + parity);
        }
    }

    #[test]
    fn an_inverse_gives_the_unit_matrix() {
        let matrix = Matrix::systematic(6, 3);
        let square = matrix.select([8, 1, 7, 3, 6, 5].into_iter());
        let unit = Matrix::from_fn(6, 6, |row, column| u8::from(row == column));
        let inverse = square.inverted().expect("there is one");
        assert_eq!(square.times(&inverse), unit);
        let twice = matrix.select([0, 1, 2, 3, 8, 8].into_iter());
        assert_eq!(twice.inverted(), None);
    }
}

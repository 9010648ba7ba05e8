//! Throughput over size as a drawing, both on scales of logarithms.
//!
//! Owns the file: it is there when all was measured, in whole, and not before.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use plotters::prelude::*;
use tempfile::{Builder, NamedTempFile};
use vram_residency::VramError;

use super::SERIES;
use super::report::{Report, short};
use crate::exit::Failure;
use crate::report::table::name;
use crate::stats::to_f64;

const PIXELS: (u32, u32) = (960, 600);

/// Told apart by people who see few colours, too (Okabe and Ito).
const COLOURS: [RGBColor; SERIES.len()] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167), RGBColor(86, 86, 86)];

/// A drawing to be.
#[derive(Debug)]
pub(super) struct Chart {
    file: NamedTempFile,
    path: PathBuf,
}

impl Chart {
    /// Finds out before anything is measured whether it can be written.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let refuse = |why: &str| VramError::InvalidParams {
            field: "svg",
            problem: format!("cannot be written ({why}); give a file in a folder where you may write"),
        };
        let name = path.file_name().filter(|_| !path.is_dir()).ok_or_else(|| refuse("it is a folder"))?;
        let path = path.with_file_name(name);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
        Ok(Self { file: file.map_err(|error| refuse(&error.kind().to_string()))?, path })
    }

    pub(super) fn draw(self, report: &Report) -> Result<(), Failure> {
        let svg = draw(report).map_err(|_| VramError::Internal { what: "the drawing failed" })?;
        let written = std::fs::write(self.file.path(), svg);
        let kept = written.and_then(|()| Ok(self.file.persist(&self.path).map(drop)?));
        kept.map_err(|source| Failure::Io { what: "writing the drawing", source })
    }
}

/// The document.
fn draw(report: &Report) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    let lines = SERIES.iter().zip(COLOURS).enumerate().map(|(at, (series, colour))| {
        let point = |size: &super::Size| {
            let measured = size.measured.get(at)?;
            Some((to_f64(size.bytes) / 1_048_576.0, measured.bytes_per_second / 1e9))
        };
        (*series, colour, report.sizes.iter().filter_map(point).collect::<Vec<_>>())
    });
    let lines: Vec<_> = lines.collect();
    // With room for the points at the edges, and on the right for the legend.
    let range = |axis: fn(&(f64, f64)) -> f64, room: f64| {
        let all = lines.iter().flat_map(|(_, _, points)| points.iter().map(axis));
        let (least, most) =
            all.fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| (least.min(value), most.max(value)));
        least / 1.3..most * room
    };
    {
        let area = SVGBackend::with_string(&mut svg, PIXELS).into_drawing_area();
        area.fill(&WHITE)?;
        let mut title = format!("{}, {}", name(&report.device.name), report.date);
        if report.warning.is_some() {
            title = format!("{title}. MOCK: figures of the CPU");
        }
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(24)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(
                range(|point| point.0, 4.0).log_scale().base(2.0),
                range(|point| point.1, 1.3).log_scale(),
            )?;
        chart
            .configure_mesh()
            .label_style(("sans-serif", 18))
            .axis_desc_style(("sans-serif", 18))
            .max_light_lines(1)
            .x_desc("image, MiB")
            .y_desc("GB/s of the image")
            .x_label_formatter(&|mebibytes| short(*mebibytes))
            .y_label_formatter(&|speed| short(*speed))
            .draw()?;
        for (series, colour, points) in lines {
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3))?
                .label(series)
                .legend(move |(x, y)| PathElement::new([(x, y), (x.saturating_add(16), y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleRight)
            .label_font(("sans-serif", 18))
            .border_style(BLACK)
            .background_style(WHITE)
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

"""How the page looks.  Blue and orange tell apart also where red and green look alike."""

STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: #f4f5f7; color: #1b1f24;
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
header, main { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 22px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0; }
h2 { font-size: 19px; margin: 0 0 2px; }
#model { margin: 4px 0 14px; color: #57606a; }
section { background: white; border: 1px solid #d8dee4; border-radius: 10px; padding: 16px 20px;
  margin-bottom: 18px; }
.hint, figcaption { color: #57606a; font-size: 14px; margin: 0 0 10px; }
.controls { display: flex; flex-wrap: wrap; gap: 8px 22px; align-items: center; margin: 0 0 12px; }
select { font: inherit; padding: 2px 6px; }
.text { line-height: 2.05; }
.token { display: inline-block; font: 15px/1.5 "DejaVu Sans Mono", ui-monospace, Menlo, Consolas,
  monospace; padding: 1px 3px; margin: 0 1px; min-width: 14px; text-align: center;
  border-radius: 4px; border: 1px solid #d8dee4; cursor: pointer; white-space: pre; }
.token.here { outline: 3px solid #d94801; outline-offset: 1px; }
.token.unseen { opacity: .38; }
.readout { min-height: 3em; margin: 8px 0 0; font-size: 15px; }
.readout code, td code { font: 14px "DejaVu Sans Mono", ui-monospace, Menlo, Consolas, monospace;
  background: #eef1f4; border-radius: 4px; padding: 1px 4px; white-space: pre; }
.legend { display: inline-flex; align-items: center; gap: 8px; font-size: 13px; color: #57606a; }
.legend i { display: inline-block; width: 150px; height: 12px; border: 1px solid #d8dee4; }
.beside { display: flex; flex-wrap: wrap; gap: 22px; align-items: flex-start; }
figure { margin: 12px 0 0; max-width: 100%; }
.scroll { overflow: auto; max-width: 100%; }
#overview { max-height: 700px; }
#overview table { border-spacing: 3px; }
#overview th { font-size: 12px; font-weight: normal; color: #57606a; padding: 0 3px; }
#overview td { padding: 0; }
.thumb { display: block; padding: 0; background: white; border: 1px solid #afb8c1; cursor: pointer;
  line-height: 0; }
.thumb.here { outline: 3px solid #d94801; }
canvas { image-rendering: pixelated; display: block; }
#map { position: relative; }
#map canvas { position: absolute; border: 1px solid #afb8c1; box-sizing: content-box;
  cursor: crosshair; }
#map span { position: absolute; white-space: pre; color: #1b1f24;
  font-family: "DejaVu Sans Mono", ui-monospace, Menlo, Consolas, monospace; }
#map .across { writing-mode: vertical-rl; transform: rotate(180deg); }
#map .upright { writing-mode: horizontal-tb; transform: none; text-align: center; }
#map .row, #map .cell { position: absolute; pointer-events: none; }
#map .row { border: 1px solid #d94801; }
#map .cell { border: 2px solid #d94801; }
#lens { border-collapse: separate; border-spacing: 2px; font-size: 13px; }
#lens th { font-weight: normal; color: #57606a; white-space: nowrap; padding: 1px 5px; }
#lens th.side { position: sticky; left: 0; background: white; text-align: right; }
#lens thead th:not(.side), #lens td { font-family: "DejaVu Sans Mono", ui-monospace, Menlo,
  Consolas, monospace; white-space: pre; }
#lens thead th:not(.side) { color: #1b1f24; }
#lens td { min-width: 26px; max-width: 96px; overflow: hidden; text-overflow: ellipsis;
  text-align: center; padding: 2px 4px; border: 2px solid transparent; cursor: pointer; }
#lens td.right { border-color: #d94801; }
#lens td.here { outline: 2px solid #1b1f24; }
"""

# What a response costs with one worker and with two, at the same rate: a line for each kind of
# request and arm. Each figure is the median of the rounds (least to most).

def median: sort | if length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def spread(format): "\(median | format) (\(min | format) to \(max | format))";
def hundredths: . * 100 | round / 100 | tostring;
def tenths: . * 10 | round / 10 | tostring;
def whole: round | tostring;
def pad($width): . + " " * ($width - length);

map(select(.round > 0)) as $windows
| def of($ask; $arm):
    $windows | map(select(.ask == $ask and .arm == $arm)) | sort_by(.round);
  def row($ask; $arm):
    of($ask; $arm) as $of
    | [$ask, (if $arm == "third" then $third else $arm end),
       ($of | map(.answered / 1000) | spread(whole)),
       ($of | map(.cpu_ns) | spread(whole)),
       ([$of, of($ask; "timeball")] | transpose
         | map(.[0].cpu_ns / .[1].cpu_ns) | spread(hundredths)),
       ($of | map(.lost_percent) | spread(tenths))];
  def table:
    ["ask", "arm", "1000 responses/s", "CPU ns/response", "x timeball", "lost %"],
    (("ntp", "nts") as $ask | ("chronyd", "timeball", "third") as $arm | row($ask; $arm));
  ([table] | transpose
    | map((map(length) | max) as $width | map(pad($width))) | transpose | .[] | join("  ")),
  "",
  "replies authenticated: \($windows | map(.sampled - .wrong) | add), wrong: \(
    $windows | map(.wrong) | add)"

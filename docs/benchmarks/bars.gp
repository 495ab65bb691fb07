# Bars, a group a case: before this come the data, the heading, and log, which is 0 or 1.
set terminal svg size 960,(60 + 14*rows + (rows < 8 ? 90 : 0)) noenhanced font "sans-serif,11" background "#ffffff"
load "docs/benchmarks/style.gp"
low = log ? 10**floor(log10(least)) : 0
high = log ? most*4 : most*1.15
if (log) set logscale x
set title heading.(unit eq "" ? "" : ", ".unit)
set xrange [low:high]
set yrange [rows:0]
set key outside right top Left reverse
set ytics scale 0
set grid xtics
unset border
right(v) = v > low ? v : low
of(i) = column(2) == i ? column(1) : NaN
plot for [i=1:words(tools)] $data using (low):(of(i)):(low):(right(column(3))):(of(i) - .45):(of(i) + .45) with boxxyerror fillstyle solid noborder linecolor rgb colour(word(tools, i)) title word(tools, i), \
	$data using (right(column(3))):1:(right(column(4)) - right(column(3))):(0) with vectors nohead linecolor rgb "#606060" notitle, \
	$data using (right(column(4))):1:5 with labels left offset .5,0 font ",9" notitle, \
	$cases using (low):1:ytic(2) with points pointtype 0 notitle

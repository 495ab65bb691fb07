# The colours of Okabe and Ito, which nearly all people can tell apart; a tool has the same in all plots.
set datafile missing "?"
set encoding utf8
set title left
colour(tool) = \
	tool eq "nftsentry" ? "#0072b2" : \
	tool eq "portsentry tcp" ? "#d55e00" : \
	tool eq "portsentry stcp" ? "#e69f00" : \
	tool eq "portsentry atcp" ? "#f0e442" : \
	tool eq "psad" ? "#009e73" : \
	tool eq "fail2ban" ? "#cc79a7" : \
	tool eq "plain firewall" ? "#999999" : \
	tool eq "none" ? "#cccccc" : \
	tool eq "nft" ? "#000000" : \
	tool eq "ipset" ? "#8b5a2b" : \
	tool eq "nftsentry, the kernel alone" ? "#88bbdd" : "#56b4e9"

from metacurate.cli import main

main()

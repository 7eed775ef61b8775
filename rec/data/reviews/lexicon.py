"""Words by which features and opinions are found in English reviews: our own choice of common words, free to be used.

Polarity is that of a word by itself; a finder turns it round behind a negation.
"""

from __future__ import annotations

POSITIVE = frozenset(
    """
    accurate adequate affordable amazing appealing attractive authentic awesome balanced beautiful best better bright
    brilliant calm charming classic clean clear clever comfortable comfy compact consistent convenient cool cozy crisp
    decent deep delicious delightful dependable durable easy effective efficient elegant enjoyable excellent
    exceptional exciting exquisite fabulous fair fantastic fast fine flavorful flawless flexible fresh friendly full
    fun funny generous genuine good gorgeous great handy happy healthy heavenly helpful ideal immaculate impressive
    incredible inexpensive intuitive juicy knowledgeable light lightweight lovely loud luxurious magnificent marvelous
    memorable modern natural neat nice outstanding peaceful perfect phenomenal pleasant polite powerful precise prompt
    quality quick quiet reasonable refreshing relaxing reliable remarkable responsive rich robust romantic rugged safe
    satisfying secure sharp sleek simple smart smooth soft solid spacious spectacular spotless stable steady stellar
    strong stunning sturdy stylish superb superior sweet talented tasty tender terrific thoughtful tidy tight touching
    tough trustworthy unbeatable unique useful valuable versatile vibrant warm welcoming wonderful worthwhile worthy
    yummy
    """.split()
)
NEGATIVE = frozenset(
    """
    annoying awful awkward bad bland boring bothersome bitter broken bulky careless cheap cheaply cheesy clumsy cold
    costly cramped crappy crowded damaged dangerous defective depressing difficult dirty disappointing disgusting
    dreadful dry dull expensive faulty filthy flawed flimsy fragile frustrating fuzzy generic greasy hard harsh heavy
    hideous horrendous horrible impolite inaccurate inadequate inconsistent inconvenient inferior lame lazy lousy
    loose mediocre messy miserable muddy nasty noisy odd outdated overcooked overpriced painful pathetic poor
    predictable questionable rough rude salty scary scratchy shabby shaky shoddy short slippery sloppy slow smelly
    soggy stale stiff strange stupid terrible thin tinny tired ugly unacceptable uncomfortable unfriendly unpleasant
    unreliable unstable useless weak weird worn worse worst worthless wrong
    """.split()
)
NEGATIONS = frozenset(
    """
    not no never nor neither without hardly barely scarcely cannot isn't wasn't aren't weren't ain't don't doesn't
    didn't can't couldn't won't wouldn't shouldn't hasn't haven't hadn't
    """.split()
)
LINKS = frozenset("is are was were be been looks look sounds sound feels feel seems seem works work tastes".split())
"""Verbs between a feature and what is said of it: "the sound is clear"."""
BETWEEN = frozenset(
    """
    a all also always an as at both equally especially even exactly extra extremely fairly generally how incredibly
    just kind less more most much not of often only pretty quite rather really remarkably simply so still such super
    surprisingly that the this too totally truly usually very
    """.split()
)
"""Words that may stand between the verb and the opinion: "is not very clear"."""
NO_FEATURES = frozenset(
    """
    a about above across actually after again against all almost along already also although always am among amount an
    and another any anybody anyone anything anyway anywhere are around as ask at away back be became because become
    been before being below between big both but buy by came can case choice come could did different do does doing
    done down due during each either else enough even ever every everybody everyone everything example except far few
    first for from gave get getting give given go goes going gone got had has have having he her here hers herself him
    himself his how however huge i idea if in including inside instead into is it its itself job just keep kept kind
    know known large last later least left less let like likely little long look looked lot lots low luck made make
    makes making many may maybe me mean might mine more most much must my myself near need needed never new next nice
    nobody none nor nothing now nowhere of off often old on once one ones only onto or other others otherwise our ours
    out outside over own part parts per perhaps place plenty plus point possible probably put quite rather really
    recently review reviews right same saw say see seem seen several she should side since small so some somebody
    someone something sometimes somewhat soon still stuff such take taken than thank thanks that the their theirs them
    themselves then there these they thing things think this those though thought through throughout thus time times
    to together too took toward towards try trying two type under until up upon us use used user users uses using
    usually various very want wanted was way ways we well went were what whatever when where whether which while who
    whole whom whose why will with within without work works would yes yet you young your yours yourself
    """.split()
)
"""Words that are never a feature, whatever stands before them."""
